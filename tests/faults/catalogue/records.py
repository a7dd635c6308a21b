"""Faults of records and topics: unreadable and huge records, redelivery of whole topics, and added partitions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

from confluent_kafka import KafkaException

from deploy.demo.plan.people import Person, people
from deploy.demo.plan.poison import make_poison
from deploy.local.parts.service import ServiceName
from shared.contract.events import SignCommand
from shared.contract.identity import canonical_email, signer_key
from shared.contract.topics import (
    NOTIFY_GROUP,
    SIGNATURES_SUBMITTED,
    TALLY_GROUP,
    VERIFY_GROUP,
    Group,
)
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Headers
from tests.faults.breaking.groups import Groups
from tests.faults.breaking.instances import start_again
from tests.faults.fault import Fault, NotPlayed
from tests.faults.notes import Planted, RunNotes, digest_of, notes_of
from tests.faults.sending.record_writer import Ends, RecordWriter
from tests.faults.sending.surge import Accepted

if TYPE_CHECKING:
    from tests.faults.world import World

_MOST_POISON: Final = 1_000
"""A twentieth of a run's surge."""
_PORTION: Final = 10
_OF_TRAFFIC: Final = 20
"""At most one of so many records is poison: if half of them are, verify stops, as designed."""
_POISON_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 0.05

_FULL_BYTES: Final = 1_048_000
"""Almost all of the largest batch that the topic takes (1,048,588 bytes), with some room for key and headers."""

_UNPACKED_BYTES: Final = 3_000_000
"""More than a dead letter may hold (twice the largest record)."""

_CONTRADICTIONS: Final = 5

_MOST_PARTITIONS: Final = 12
_TAKEN_UP_SECONDS: Final = 45.0
"""Consumers look for new partitions every 30 seconds."""

_FROM_THE_VERY_BEGINNING: Final = 60_000
"""Longer topics are redelivered from the run's beginning only: a campaign's whole history would take minutes."""

_numbers = count(900_000_000)
"""Numbers of signers whose commands bypass the API; those of the surges are below."""

_SUBMITTED: Final = SIGNATURES_SUBMITTED.name


def _strangers(world: World, random: Random) -> Iterator[tuple[str, Person]]:
    """The run's petitions in turn, each with a person who signs nothing else."""
    while True:
        for petition_id in notes_of(world).petitions:
            yield petition_id, people(random, first_number=next(_numbers), count=1, countries=None)[0]


# -------------------------------------------------------------------------------------------------------------- poison


async def _poison(world: World, random: Random) -> None:
    """Unreadable records of every kind, among the others."""
    notes, writer, ends = (
        notes_of(world),
        RecordWriter(world.bootstrap_servers, _SUBMITTED),
        Ends(world.bootstrap_servers),
    )
    try:
        partitions = await writer.partitions()
        began, deadline = await _total(ends, partitions), time.monotonic() + _POISON_SECONDS
        records = make_poison(random, _strangers(world, random), random.randint(_MOST_POISON // 4, _MOST_POISON))
        sent = 0
        while sent < len(records) and time.monotonic() < deadline:
            for place, record in enumerate(records[sent : sent + _PORTION], sent):
                planted = Planted(record.reason, digest_of(record.key, record.value, record.headers))
                _put(
                    world,
                    writer,
                    partitions[place % len(partitions)],
                    record.key,
                    record.value,
                    record.headers,
                    planted,
                )
            sent = min(sent + _PORTION, len(records))
            while await _total(ends, partitions) - began < sent * _OF_TRAFFIC and time.monotonic() < deadline:
                await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await asyncio.to_thread(ends.close)
        await writer.close()
    world.timeline.note("poison written", records=writer.written, planted=len(notes.planted))


async def _total(ends: Ends, partitions: list[int]) -> int:
    while True:
        try:
            return sum((await ends.of(_SUBMITTED, partitions)).values())
        except KafkaException:  # the broker is away because of another fault
            await asyncio.sleep(_LOOK_SECONDS)


def _put(
    world: World,
    writer: RecordWriter,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    planted: Planted,
) -> None:
    notes = notes_of(world)

    def then(partition: int, offset: int) -> None:
        notes.planted[_SUBMITTED, partition, offset] = planted

    writer.put(partition, key, value, headers, then=then)


# ---------------------------------------------------------------------------------------------------------- a megabyte


async def _megabyte(world: World, random: Random) -> None:
    """Records as large as the topic takes: a valid signature, a comment that is too long, garbage, and a compressed one."""
    writer = RecordWriter(world.bootstrap_servers, _SUBMITTED)
    packed = RecordWriter(world.bootstrap_servers, _SUBMITTED, compression="gzip")
    try:
        partitions = await writer.partitions()
        strangers = _strangers(world, random)
        for _ in range(2):
            # verify ignores unknown fields of any length: this one counts.
            _put_signature(world, random, writer, len(partitions), next(strangers)[1])
            await asyncio.sleep(random.uniform(0.1, 0.5))
            key, value, headers = _long_comment(random, *next(strangers))
            planted = Planted("schema", digest_of(key, value, headers))
            _put(world, writer, random.choice(partitions), key, value, headers, planted)
            await asyncio.sleep(random.uniform(0.1, 0.5))
            rubbish = random.randbytes(_FULL_BYTES)
            planted = Planted("not_a_cloud_event", digest_of(None, rubbish, []))
            _put(world, writer, random.choice(partitions), None, rubbish, [], planted)
            await asyncio.sleep(random.uniform(0.1, 0.5))
            # Small on the topic, but larger than any topic takes when unpacked: its dead letter can only name it.
            unpacks, planted = b"x" * _UNPACKED_BYTES, Planted("not_a_cloud_event", None)
            _put(world, packed, random.choice(partitions), None, unpacks, [], planted)
    finally:
        await writer.close()
        await packed.close()
    world.timeline.note("huge records written", records=writer.written + packed.written)


def _put_signature(world: World, random: Random, writer: RecordWriter, partitions: int, person: Person) -> None:
    petition_id = notes_of(world).petitions[0]
    command, headers = _command(random, petition_id, person)
    pepper = world.environment["SIGNER_PEPPER"].encode()
    key = _record_key(pepper, petition_id, person)
    value = _filled_up(command.model_dump_json(), "appendix")
    writer.put(partition_of(key, partitions), key, value, headers, then=_counts(notes_of(world), command, person))


def _record_key(pepper: bytes, petition_id: str, person: Person) -> bytes:
    return signer_key(pepper, petition_id, canonical_email(person.email)).hex.encode()


def _counts(notes: RunNotes, command: SignCommand, person: Person) -> Callable[[int, int], None]:
    """Called when the command is on the topic: from now on it has to count."""
    accepted = Accepted(command.petition_id, int("".join(filter(str.isdigit, person.email.partition("@")[0]))))

    def then(_partition: int, _offset: int) -> None:
        notes.accepted[str(command.signature_id)] = accepted

    return then


def _long_comment(random: Random, petition_id: str, person: Person) -> tuple[bytes, bytes, Headers]:
    command, headers = _command(random, petition_id, person)
    return (
        random.randbytes(16).hex().encode(),
        _filled_up(command.model_dump_json(exclude={"comment"}), "comment"),
        headers,
    )


def _command(random: Random, petition_id: str, person: Person) -> tuple[SignCommand, Headers]:
    signature_id, now = UUID(bytes=random.randbytes(16), version=4), datetime.now(UTC)
    command = SignCommand(
        signature_id=signature_id,
        petition_id=petition_id,
        email=person.email,
        name=person.name,
        country=person.country,
        consent=True,
        submitted_at=now,
    )
    return command, event_headers(
        SignCommand, event_id=signature_id, source="/elsewhere", subject=petition_id, time=now
    )


def _filled_up(text: str, field: str) -> bytes:
    body = json.loads(text)
    bare = len(json.dumps({**body, field: ""}).encode())
    return json.dumps({**body, field: "x" * (_FULL_BYTES - bare)}).encode()


# ------------------------------------------------------------------------------------------------------ contradictions


async def contradictions(world: World, random: Random) -> None:
    """Signatures, each followed in its lane by one with the same id for another petition, which cannot be applied."""
    notes, writer = notes_of(world), RecordWriter(world.bootstrap_servers, _SUBMITTED)
    first, other = notes.petitions[0], notes.petitions[-1]
    pepper = world.environment["SIGNER_PEPPER"].encode()
    try:
        partitions = len(await writer.partitions())
        for _ in range(_CONTRADICTIONS):
            person = people(random, first_number=next(_numbers), count=1, countries=None)[0]
            command, headers = _command(random, first, person)
            key = _record_key(pepper, first, person)
            lane = partition_of(key, partitions)
            writer.put(lane, key, command.model_dump_json().encode(), headers, then=_counts(notes, command, person))
            value = command.model_copy(update={"petition_id": other}).model_dump_json().encode()
            key = _record_key(pepper, other, person)
            _put(world, writer, lane, key, value, headers, Planted("cannot_be_applied", digest_of(key, value, headers)))
    finally:
        await writer.close()
    world.timeline.note("contradictions written", records=writer.written)


# ---------------------------------------------------------------------------------------------------------- redelivery


def _redelivered(service: ServiceName, group: Group) -> Fault:
    """All instances stop, the group's offsets are set back, all start again."""

    async def act(world: World, random: Random) -> None:
        groups, ends = Groups(world.bootstrap_servers), Ends(world.bootstrap_servers)
        starts = dict(notes_of(world).starts[group.topic.name])
        try:
            if random.random() < 0.3 and sum(starts.values()) < _FROM_THE_VERY_BEGINNING:
                starts = dict.fromkeys(starts, 0)
            await asyncio.gather(*(process.stop() for process in list(world.services[service])))
            await groups.reset(group.name, group.topic.name, starts)
            total = sum((await ends.of(group.topic.name, list(starts))).values())
            world.timeline.note("offsets set back", group=group.name, records=total - sum(starts.values()), to=starts)
        finally:
            await asyncio.to_thread(ends.close)
            await start_again(world, service)

    return Fault(f"{service}-redelivered", frozenset({service, "redelivery"}), act)


# ---------------------------------------------------------------------------------------------------------- partitions


async def _partition_added(world: World, random: Random) -> None:
    """One more partition for ``signatures.submitted``, until there are enough. Returns when verify reads it."""
    groups = Groups(world.bootstrap_servers)
    have = await groups.partitions(_SUBMITTED)
    if have >= _MOST_PARTITIONS:
        raise NotPlayed(f"{_SUBMITTED} has {have} partitions, as many as a campaign gives it")
    await groups.add_partition(_SUBMITTED, have=have)
    world.timeline.note("partition added", partitions=have + 1)
    deadline = time.monotonic() + _TAKEN_UP_SECONDS
    while have not in await groups.owned(VERIFY_GROUP.name, _SUBMITTED):
        if time.monotonic() > deadline:
            raise TimeoutError(f"partition {have} of {_SUBMITTED} is not read after {_TAKEN_UP_SECONDS:.0f} s")
        await asyncio.sleep(1.0)
    ends = Ends(world.bootstrap_servers)
    try:
        records = await _total(ends, [have])
    finally:
        await asyncio.to_thread(ends.close)
    world.timeline.note("partition taken up", partition=have, records=records)


FAULTS: Final[tuple[Fault, ...]] = (
    Fault("poison-records", frozenset({"poison"}), _poison),
    Fault("megabyte-records", frozenset({"megabytes"}), _megabyte),
    _redelivered("verify", VERIFY_GROUP),
    _redelivered("tally", TALLY_GROUP),
    _redelivered("notify", NOTIFY_GROUP),
    Fault("partition-added", frozenset({"partitions"}), _partition_added),
)
