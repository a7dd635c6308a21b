"""Invented petitions, signers, commands and facts for the tests of verify and of tally's counting."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiokafka import ConsumerRecord

from services.tally.counting.facts import ReadFact
from services.verify.deciding.rules import SubmittedCommand
from shared.contract.events import (
    ChangeCommand,
    Command,
    EraseCommand,
    Event,
    Organisation,
    PetitionChanged,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    Target,
)
from shared.contract.identity import canonical_email, command_id, signer_key
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Headers, Record

PEPPER = b"a pepper that only tests know"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATH = "open-the-river-path"
FERRY = "keep-the-night-ferry"


def petition(petition_id: str = PATH, **changes: Any) -> PetitionChanged:
    """A petition of River Valley Together that takes every signature; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "petition_id": petition_id,
        "changed_at": NOON,
        "organisation": Organisation(slug="river-valley", name="River Valley Together"),
        "title": "Open the river path",
        "text": "The path along the river has been closed for two years.",
        "targets": [
            Target(target_id="council", name="The Harbour Council", kind="body", email="office@harbour.example")
        ],
    }
    return PetitionChanged(**{**fields, **changes})


def sign(
    number: int, *, signer: int | None = None, petition_id: str = PATH, at: datetime = NOON, **changes: Any
) -> SignCommand:
    """The sign command with the id `number`, of the signer with that number if no other is given."""
    fields: dict[str, Any] = {
        "signature_id": UUID(int=number),
        "petition_id": petition_id,
        "email": f"signer{number if signer is None else signer}@lakepost.example",
        "name": "Ada Marsh",
        "country": "NL",
        "submitted_at": at,
    }
    return SignCommand(**{**fields, **changes})


def change(command: type[ChangeCommand], number: int, *, petition_id: str = PATH, at: datetime = NOON) -> Any:
    """The command to confirm, withdraw, invalidate or erase the signature with the id `number`."""
    words = {"actor": "Kim of the helpdesk", "reason": "ticket 4711"} if issubclass(command, EraseCommand) else {}
    return command(signature_id=UUID(int=number), petition_id=petition_id, requested_at=at, **words)


def event_id_of(command: Command) -> UUID:
    """The event id of a command."""
    if isinstance(command, SignCommand):
        return command.signature_id
    return command_id(command.signature_id, command.TYPE)


def signer_key_of(command: SignCommand, pepper: bytes = PEPPER) -> UUID:
    """The signer key of a sign command."""
    return signer_key(pepper, command.petition_id, canonical_email(command.email))


def submission(
    command: Command, *, offset: int = 0, lane: int = 0, key: UUID | None = None, email_domain: str | None = None
) -> SubmittedCommand:
    """A command as verify has read it. Commands that are not to sign need the `key` of the signer."""
    if isinstance(command, SignCommand):
        key = key or signer_key_of(command)
        email_domain = email_domain or command.email.rpartition("@")[2]
    assert key is not None
    moment = command.requested_at if isinstance(command, ChangeCommand) else command.submitted_at
    return SubmittedCommand(
        event_id_of(command), key, lane, offset, moment.astimezone(UTC), command, email_domain or ""
    )


def record(
    event: Event | bytes | None,
    *,
    key: bytes | None = None,
    headers: Headers | None = None,
    event_id: str | UUID = "1",
    partition: int = 0,
    offset: int = 0,
    arrived: datetime | None = None,
) -> ConsumerRecord[Any, Any]:
    """A record as the consumer gets it. Without `arrived` it is from a broker that does not stamp arrivals."""
    if headers is None and isinstance(event, Event):
        headers = event_headers(type(event), event_id=event_id, source="/elsewhere", subject=PATH)
    return ConsumerRecord(
        topic="a topic",
        partition=partition,
        offset=offset,
        timestamp=0 if arrived is None else int(arrived.timestamp() * 1000),
        timestamp_type=0 if arrived is None else 1,
        key=key,
        value=event.model_dump_json().encode() if isinstance(event, Event) else event,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=headers or [],
    )


def fact(
    position: int,
    delta: int = 1,
    *,
    lane: int = 0,
    petition_id: str = PATH,
    country: str = "NL",
    minute: int = 0,
) -> SignatureVerified | SignatureRevoked:
    """The fact at a position of a lane: +1 for a verified signature, -1 for a withdrawn one."""
    fields: dict[str, Any] = {
        "signature_id": UUID(int=lane << 64 | position),
        "petition_id": petition_id,
        "lane": lane,
        "position": position,
        "country": country,
        "signed_at": NOON + timedelta(minutes=minute),
        "occurred_at": NOON + timedelta(minutes=minute),
    }
    return SignatureVerified(**fields) if delta > 0 else SignatureRevoked(**fields, cause="withdrawn")


def as_read(*facts: Any) -> list[ReadFact]:
    """Facts as tally reads them from the topic."""
    return [one.model_dump() for one in facts]


class MemoryProducer(EventProducer):
    """Keeps published events. `before` runs before each record is on its topic, and may raise."""

    def __init__(self, *, partitions: int = 1, before: Callable[[str, Record], Awaitable[None]] | None = None) -> None:
        self.published: list[tuple[str, Record]] = []
        self._count, self._before = partitions, before

    async def publish(self, topic: str, record: Record) -> None:
        if self._before is not None:
            await self._before(topic, record)
        self.published.append((topic, record))

    async def publish_in_order(self, topic: str, records: Iterable[Record]) -> None:
        for one in records:
            await self.publish(topic, one)

    async def partitions(self, topic: str) -> int:
        return self._count

    def on(self, topic: str) -> list[Record]:
        """What is on a topic, in order."""
        return [record for name, record in self.published if name == topic]
