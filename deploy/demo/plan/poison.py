"""Poison: invalid records, written directly to ``signatures.submitted``, with the reasons that their dead letters must have.

Some are harmless garbage. Others are complete signatures that would be counted if a check were missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final
from uuid import UUID

from deploy.demo.plan.people import Person
from shared.contract.events import SignatureVerified, SignCommand
from shared.contract.topics import DEFAULT_PARTITIONS
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Headers

_SOURCE: Final = "/elsewhere"


@dataclass(frozen=True, slots=True)
class Poison:
    """One record, the partition it goes to, and the reason that its dead letter must carry."""

    reason: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Draft:
    """A well-formed sign command. Its key is a UUID, as a signer key is, but not that of its e-mail."""

    key: bytes
    value: bytes
    headers: Headers
    event_id: UUID


_Spoil = Callable[[_Draft], tuple[bytes | None, bytes | None, Headers]]


def _with(headers: Headers, name: str, value: bytes) -> Headers:
    return [(header, value if header == name else old) for header, old in headers]


def _without_field(value: bytes, field: str) -> bytes:
    return json.dumps({name: content for name, content in json.loads(value).items() if name != field}).encode()


def _with_field(value: bytes, field: str, content: object) -> bytes:
    return json.dumps({**json.loads(value), field: content}).encode()


_KINDS: Final[tuple[tuple[str, _Spoil], ...]] = (
    # No CloudEvent.
    ("not_a_cloud_event", lambda draft: (draft.key, draft.value, [])),
    ("not_a_cloud_event", lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_specversion", b"0.3"))),
    ("not_a_cloud_event", lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_id", b"\xff\xfe"))),
    # Another event, and an unknown type.
    (
        "unknown_type",
        lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_type", SignatureVerified.TYPE.encode())),
    ),
    ("unknown_type", lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_type", b"org.example.ping"))),
    # No value; a value that is no JSON, no text, no object, or cut off.
    ("no_value", lambda draft: (draft.key, None, draft.headers)),
    ("schema", lambda draft: (draft.key, b"", draft.headers)),
    ("schema", lambda draft: (draft.key, b"email=somebody@lakepost.example&name=Somebody", draft.headers)),
    ("schema", lambda draft: (draft.key, b"\x80\x81\xfe\xff" * 8, draft.headers)),
    ("schema", lambda draft: (draft.key, b"[" + draft.value + b"]", draft.headers)),
    ("schema", lambda draft: (draft.key, draft.value[: len(draft.value) // 2], draft.headers)),
    ("schema", lambda draft: (draft.key, b"[" * 5_000, draft.headers)),
    # An object with a field missing, of the wrong type, or of the wrong shape.
    ("schema", lambda draft: (draft.key, _without_field(draft.value, "email"), draft.headers)),
    ("schema", lambda draft: (draft.key, _without_field(draft.value, "signature_id"), draft.headers)),
    ("schema", lambda draft: (draft.key, _with_field(draft.value, "country", 49), draft.headers)),
    ("schema", lambda draft: (draft.key, _with_field(draft.value, "consent", "yes"), draft.headers)),
    ("schema", lambda draft: (draft.key, _with_field(draft.value, "petition_id", "No Such Slug!"), draft.headers)),
    ("schema", lambda draft: (draft.key, _with_field(draft.value, "submitted_at", "yesterday"), draft.headers)),
    # Whole signatures with one thing wrong.
    ("event_id", lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_id", b"42"))),
    ("event_id", lambda draft: (draft.key, draft.value, _with(draft.headers, "ce_id", str(UUID(int=42)).encode()))),
    ("key", lambda draft: (None, draft.value, draft.headers)),
    ("key", lambda draft: (b"quillmere-night-bus", draft.value, draft.headers)),
    ("email_invalid", lambda draft: (draft.key, _with_field(draft.value, "email", "nobody at all"), draft.headers)),
    ("signer_key_mismatch", lambda draft: (draft.key, draft.value, draft.headers)),
)


def make_poison(random: Random, signers: Iterator[tuple[str, Person]], count: int) -> list[Poison]:
    """`count` poison records, all kinds in turn, then shuffled; over all partitions in turn.

    Args:
        signers: (petition id, person) pairs for the records that look like signatures; nobody of the surge.
    """
    records = []
    for number in range(count):
        reason, spoil = _KINDS[number % len(_KINDS)]
        key, value, headers = spoil(_draft(random, *next(signers)))
        records.append(Poison(reason, number % DEFAULT_PARTITIONS, key, value, headers))
    random.shuffle(records)
    return records


def _draft(random: Random, petition_id: str, person: Person) -> _Draft:
    event_id = UUID(bytes=random.randbytes(16))
    moment = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    command = SignCommand(
        signature_id=event_id,
        petition_id=petition_id,
        email=person.email,
        name=person.name,
        country=person.country,
        consent=True,
        submitted_at=moment,
    )
    return _Draft(
        key=random.randbytes(16).hex().encode(),
        value=command.model_dump_json().encode(),
        headers=event_headers(SignCommand, event_id=event_id, source=_SOURCE, subject=petition_id, time=moment),
        event_id=event_id,
    )
