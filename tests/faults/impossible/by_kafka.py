"""Impossible records: foreign, forged, stale and unreadable ones on every topic."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

from shared.contract.events import (
    MilestoneReached,
    PetitionChanged,
    SignatureRejected,
    SignatureVerified,
    SignCommand,
    TallyUpdated,
)
from shared.contract.identity import canonical_email, milestone_id, signer_key
from shared.contract.topics import (
    MILESTONES_REACHED,
    PETITIONS_CHANGED,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
    Topic,
)
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Headers
from tests.faults.impossible.act import Act, Acts, Do, Traces
from tests.faults.impossible.records import put
from tests.faults.impossible.victim import FIRST_MILESTONE, MALLORY, NEVER, SIGNERS, Victim

_acts = Acts("kafka")

_SOURCE: Final = "/elsewhere"
_LETTERS: Final = frozenset({SIGNATURES_SUBMITTED.name, SIGNATURES_VERIFIED.name, MILESTONES_REACHED.name})
"""Topics whose unreadable records become dead letters; those of the others stay where they are."""

FORGED_COUNT: Final = 987_654_321
FORGED_REVISION: Final = 10**15
_FAR: Final = 1_000_000
_FOREIGN_KEY: Final = "somebody-else"

Drafted = tuple[bytes, Headers]


def _snapshot(victim: Victim, *, count: int, revision: int) -> Drafted:
    now = datetime.now(UTC)
    event = TallyUpdated(
        petition_id=victim.petition_id,
        count=count,
        revision=revision,
        countries={"NL": count},
        minutes={now.strftime("%Y-%m-%dT%H:%MZ"): count},
        earlier=0,
        updated_at=now,
    )
    headers = event_headers(
        TallyUpdated, event_id=f"{victim.petition_id}/{revision}", source=_SOURCE, subject=victim.petition_id, time=now
    )
    return event.model_dump_json().encode(), headers


def _milestone(victim: Victim, threshold: int) -> Drafted:
    now = datetime.now(UTC)
    event = MilestoneReached(
        petition_id=victim.petition_id, threshold=threshold, count=threshold, revision=threshold, reached_at=now
    )
    headers = event_headers(
        MilestoneReached,
        event_id=milestone_id(victim.petition_id, threshold),
        source=_SOURCE,
        subject=victim.petition_id,
        time=now,
    )
    return event.model_dump_json().encode(), headers


def _fact(victim: Victim, lane: int, position: int, **changes: Any) -> Drafted:
    now = datetime.now(UTC)
    event_id = uuid4()
    event = SignatureVerified(
        signature_id=event_id,
        petition_id=victim.petition_id,
        lane=lane,
        position=position,
        country="NL",
        signed_at=now,
        occurred_at=now,
    )
    value = json.dumps({**event.model_dump(mode="json"), **changes}).encode()
    headers = event_headers(SignatureVerified, event_id=event_id, source=_SOURCE, subject=victim.petition_id, time=now)
    return value, headers


def _petition(victim: Victim, *, changed_at: datetime, **changes: Any) -> Drafted:
    body = {
        **victim.body,
        "targets": [{"target_id": "council", "name": "Mallory", "kind": "person", "email": MALLORY}],
        "milestones": [1, 2],
        **changes,
    }
    event = PetitionChanged.model_validate_json(
        json.dumps({**body, "petition_id": victim.petition_id, "changed_at": changed_at.isoformat()})
    )
    headers = event_headers(
        PetitionChanged, event_id=uuid4(), source=_SOURCE, subject=victim.petition_id, time=changed_at
    )
    return event.model_dump_json().encode(), headers


def _command(victim: Victim, *, submitted_at: datetime) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of a sign command that ingest might have written."""
    email, signature_id = victim.email(900_000), uuid4()
    command = SignCommand(
        signature_id=signature_id,
        petition_id=victim.petition_id,
        email=email,
        name="Robin Example",
        country="NL",
        consent=True,
        submitted_at=submitted_at,
    )
    key = signer_key(victim.parts.pepper, victim.petition_id, canonical_email(email)).hex.encode()
    headers = event_headers(
        SignCommand, event_id=signature_id, source=_SOURCE, subject=victim.petition_id, time=submitted_at
    )
    return key, command.model_dump_json().encode(), headers


def _rejection(victim: Victim) -> Drafted:
    now = datetime.now(UTC)
    event = SignatureRejected(
        signature_id=UUID(victim.signatures[0]),
        petition_id=victim.petition_id,
        outcome="rejected",
        reason="name_invalid",
        submitted_at=now,
    )
    headers = event_headers(SignatureRejected, event_id=uuid4(), source=_SOURCE, subject=victim.petition_id, time=now)
    return event.model_dump_json().encode(), headers


async def _last(victim: Victim, random: Random) -> tuple[int, int]:
    """A lane with rows of the petition, and the lane's last position."""
    lane = random.choice(sorted((await victim.truth()).fences))
    async with victim.parts.database() as database:
        position: int = await database.fetchval("SELECT max(position) FROM ledger WHERE lane = $1", lane)
    return lane, position


# ------------------------------------------------------------------------------------------------------- on every topic


def _drafted(victim: Victim, topic: Topic) -> tuple[bytes, bytes, Headers]:
    """A record of this topic about the petition as a service might write it, with its key."""
    if topic is SIGNATURES_SUBMITTED:
        return _command(victim, submitted_at=datetime.now(UTC))
    value, headers = {
        SIGNATURES_VERIFIED.name: lambda: _fact(victim, 0, 1),
        SIGNATURES_REJECTED.name: lambda: _rejection(victim),
        PETITIONS_CHANGED.name: lambda: _petition(victim, changed_at=datetime.now(UTC)),
        TALLIES_UPDATED.name: lambda: _snapshot(victim, count=FORGED_COUNT, revision=FORGED_REVISION),
        MILESTONES_REACHED.name: lambda: _milestone(victim, NEVER),
    }[topic.name]()
    return victim.petition_id.encode(), value, headers


def _foreign(topic: Topic, key: bytes | None, reason: str) -> Do:
    async def act(victim: Victim, _: Random, traces: Traces) -> None:
        """A record that does not match its key."""
        _own_key, value, headers = _drafted(victim, topic)
        written = await put(victim.parts, topic.name, key, value, headers)
        if topic.name in _LETTERS:
            traces.plant(written, reason)

    return act


def _rubbish(topic: Topic) -> Do:
    async def act(victim: Victim, random: Random, traces: Traces) -> None:
        """A record under the right key without content."""
        key, value, headers = _drafted(victim, topic)
        how = random.randrange(4)
        spoiled: tuple[bytes | None, Headers] = (
            (random.randbytes(200), headers),
            (value[: len(value) // 2], headers),
            (value, []),
            (json.dumps([json.loads(value)]).encode(), headers),
        )[how]
        written = await put(victim.parts, topic.name, key, *spoiled)
        if topic.name in _LETTERS:
            traces.plant(written, "not_a_cloud_event" if how == 2 else "schema")

    return act


def _unreadable_header(topic: Topic) -> Do:
    async def act(victim: Victim, _: Random, traces: Traces) -> None:
        """A record that the client cannot unpack: a header's name is not UTF-8."""
        key, value, headers = _drafted(victim, topic)
        written = await put(victim.parts, topic.name, key, value, headers, unreadable_header=True)
        if topic.name in _LETTERS:
            traces.plant(written, "unreadable_headers")

    return act


for _topic, _other_key, _reason in (
    (SIGNATURES_SUBMITTED, b"0" * 32, "signer_key_mismatch"),
    (SIGNATURES_VERIFIED, _FOREIGN_KEY.encode(), "key"),
    (SIGNATURES_REJECTED, _FOREIGN_KEY.encode(), ""),
    (PETITIONS_CHANGED, _FOREIGN_KEY.encode(), ""),
    (TALLIES_UPDATED, _FOREIGN_KEY.encode(), ""),
    (MILESTONES_REACHED, _FOREIGN_KEY.encode(), "key"),
):
    _name = _topic.name.removesuffix(".v1").replace(".", "-")
    _acts.put(f"{_name}-foreign", _foreign(_topic, _other_key, _reason))
    if _topic.retention is not None:  # the broker itself wants a key there
        _acts.put(
            f"{_name}-without-key", _foreign(_topic, None, _reason if _topic is not SIGNATURES_SUBMITTED else "key")
        )
    _acts.put(f"{_name}-rubbish", _rubbish(_topic))
    _acts.put(f"{_name}-unreadable-header", _unreadable_header(_topic))


# ------------------------------------------------------------------------------------------------------ tallies.updated


def _told(count: int, revision: int) -> Do:
    async def act(victim: Victim, _: Random, __: Traces) -> None:
        """A snapshot that tally did not write."""
        await put(
            victim.parts,
            TALLIES_UPDATED.name,
            victim.petition_id.encode(),
            *_snapshot(victim, count=count, revision=revision),
        )

    return act


_acts.put("tallies-updated-forged", _told(FORGED_COUNT, FORGED_REVISION))
_acts.put("tallies-updated-forged-at-the-end-of-numbers", _told(2**63 - 1, 2**63 - 1))
_acts.put("tallies-updated-forged-beyond-numbers", _told(10**30, 10**30))
_acts.put("tallies-updated-forged-by-one", _told(SIGNERS + 1, SIGNERS + 1))
_acts.put("tallies-updated-same-revision", _told(FORGED_COUNT, SIGNERS))
_acts.put("tallies-updated-stale", _told(1, 1))


@_acts.add("tallies-updated-tombstone")
async def _tally_tombstone(victim: Victim, _: Random, __: Traces) -> None:
    """Somebody deleted the petition's snapshot."""
    await put(victim.parts, TALLIES_UPDATED.name, victim.petition_id.encode(), None, [])


@_acts.add("tallies-updated-elsewhere")
async def _tally_elsewhere(victim: Victim, _: Random, __: Traces) -> None:
    """A snapshot in a partition that is not its key's."""
    value, headers = _snapshot(victim, count=FORGED_COUNT, revision=FORGED_REVISION)
    partition = (await _partition(victim, TALLIES_UPDATED) + 1) % await _partitions(victim, TALLIES_UPDATED)
    await put(victim.parts, TALLIES_UPDATED.name, victim.petition_id.encode(), value, headers, partition=partition)


async def _partitions(victim: Victim, topic: Topic) -> int:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=victim.parts.bootstrap_servers)
    await producer.start()
    try:
        return len(await producer.partitions_for(topic.name))
    finally:
        await producer.stop()


async def _partition(victim: Victim, topic: Topic) -> int:
    return partition_of(victim.petition_id.encode(), await _partitions(victim, topic))


# --------------------------------------------------------------------------------------------------- milestones.reached


@_acts.add("milestones-reached-undecided")
async def _undecided(victim: Victim, _: Random, traces: Traces) -> None:
    """A milestone that was not reached, under the right key."""
    value, headers = _milestone(victim, NEVER)
    written = await put(victim.parts, MILESTONES_REACHED.name, victim.petition_id.encode(), value, headers)
    traces.plant(written, "not_decided")


@_acts.add("milestones-reached-nobody-has")
async def _nobody_has(victim: Victim, _: Random, traces: Traces) -> None:
    """A threshold that the petition does not have, below its count."""
    value, headers = _milestone(victim, 2)
    written = await put(victim.parts, MILESTONES_REACHED.name, victim.petition_id.encode(), value, headers)
    traces.plant(written, "not_decided")


@_acts.add("milestones-reached-again")
async def _again(victim: Victim, _: Random, traces: Traces) -> None:
    """A milestone that was announced, repeated with other numbers."""
    value, headers = _milestone(victim, FIRST_MILESTONE)
    changed = json.dumps({**json.loads(value), "count": 4_000}).encode()
    written = await put(victim.parts, MILESTONES_REACHED.name, victim.petition_id.encode(), changed, headers)
    traces.plant(written, "not_decided")


# -------------------------------------------------------------------------------------------------- signatures.verified


async def _put_fact(victim: Victim, traces: Traces, draft: Drafted, reason: str) -> None:
    written = await put(victim.parts, SIGNATURES_VERIFIED.name, victim.petition_id.encode(), *draft)
    if reason:
        traces.plant(written, reason)
    await victim.sign(len(victim.signatures))


@_acts.add("signatures-verified-at-the-end-of-numbers")
async def _fact_at_the_end(victim: Victim, random: Random, traces: Traces) -> None:
    """Every later fact of the lane would be below this position."""
    lane, _ = await _last(victim, random)
    await _put_fact(victim, traces, _fact(victim, lane, 2**53), "out_of_range")


@_acts.add("signatures-verified-ahead")
async def _fact_ahead(victim: Victim, random: Random, traces: Traces) -> None:
    """A position that the lane has not reached."""
    lane, last = await _last(victim, random)
    await _put_fact(victim, traces, _fact(victim, lane, last + _FAR), "not_in_ledger")


@_acts.add("signatures-verified-next")
async def _fact_next(victim: Victim, random: Random, traces: Traces) -> None:
    """The very next position of the lane: a real fact will have it."""
    traces.follow.add("not_in_ledger")  # unless the ledger has that row when tally asks
    lane, last = await _last(victim, random)
    await _put_fact(victim, traces, _fact(victim, lane, last + 1), "")


@_acts.add("signatures-verified-of-another-row")
async def _fact_of_another(victim: Victim, random: Random, traces: Traces) -> None:
    """The position of the lane's last row, whosever it is, under another event."""
    lane, last = await _last(victim, random)
    await _put_fact(victim, traces, _fact(victim, lane, last), "")


@_acts.add("signatures-verified-in-no-lane")
async def _fact_in_no_lane(victim: Victim, _: Random, traces: Traces) -> None:
    """A lane that does not exist."""
    await _put_fact(victim, traces, _fact(victim, 2_000_000_000, 1), "not_in_ledger")


@_acts.add("signatures-verified-of-2099")
async def _fact_of_2099(victim: Victim, random: Random, traces: Traces) -> None:
    """A time that would stay the newest for ever."""
    lane, last = await _last(victim, random)
    draft = _fact(victim, lane, last + 1, signed_at="2099-06-01T00:00:00Z", occurred_at="2099-06-01T00:00:00Z")
    await _put_fact(victim, traces, draft, "out_of_range")


@_acts.add("signatures-verified-tombstone")
async def _fact_tombstone(victim: Victim, _: Random, traces: Traces) -> None:
    """A key and nothing else."""
    written = await put(victim.parts, SIGNATURES_VERIFIED.name, victim.petition_id.encode(), None, [])
    traces.plant(written, "not_a_cloud_event")


# ---------------------------------------------------------------------------------------------------- petitions.changed


@_acts.add("petitions-changed-stale-elsewhere")
async def _petition_elsewhere(victim: Victim, _: Random, __: Traces) -> None:
    """An older state, in a partition that is not its key's."""
    value, headers = _petition(victim, changed_at=datetime.now(UTC) - timedelta(days=1))
    partition = (await _partition(victim, PETITIONS_CHANGED) + 1) % await _partitions(victim, PETITIONS_CHANGED)
    await put(victim.parts, PETITIONS_CHANGED.name, victim.petition_id.encode(), value, headers, partition=partition)


@_acts.add("petitions-changed-tombstone-elsewhere")
async def _petition_tombstone(victim: Victim, _: Random, __: Traces) -> None:
    """The petition is deleted, in a partition that is not its key's."""
    partition = (await _partition(victim, PETITIONS_CHANGED) + 1) % await _partitions(victim, PETITIONS_CHANGED)
    await put(victim.parts, PETITIONS_CHANGED.name, victim.petition_id.encode(), None, [], partition=partition)


# ------------------------------------------------------------------------------------------------- signatures.submitted


def _signed_at(moment: datetime) -> Do:
    async def act(victim: Victim, _: Random, traces: Traces) -> None:
        """A valid signature of another time."""
        key, value, headers = _command(victim, submitted_at=moment)
        written = await put(victim.parts, SIGNATURES_SUBMITTED.name, key, value, headers)
        traces.plant(written, "out_of_range")
        await victim.sign(len(victim.signatures))

    return act


_acts.put("signatures-submitted-of-2099", _signed_at(datetime(2099, 6, 1, tzinfo=UTC)))
_acts.put("signatures-submitted-of-1970", _signed_at(datetime(1970, 1, 1, 1, tzinfo=UTC)))
_acts.put("signatures-submitted-of-the-end-of-time", _signed_at(datetime(9999, 12, 31, tzinfo=UTC)))

ACTS: Final[tuple[Act, ...]] = tuple(_acts.found)
