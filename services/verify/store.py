"""All SQL of verify: one transaction per batch, set-based, safe to repeat.

Killed before the commit, nothing happened. Killed after it, the same batch comes again and finds every command decided:
`apply` then answers with what is stored, positions included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg

from services.verify.decide import Change, Judgement, Kind, Reason, Submission, in_lane_order, in_rounds, is_sign
from shared.events import ConfirmCommand, InvalidateCommand, SignCommand, WithdrawCommand
from shared.failpoints import failpoint
from shared.postgres import Database


class LaneTaken(ConnectionError):
    """Another verify wrote to one of our lanes meanwhile. Everything was rolled back.

    Transient: decided again, what the other one decided is found as decided. If it owns the lane now, our commit of the
    offsets will be refused and the batch given up.
    """


class LedgerRow(NamedTuple):
    """A row of the ledger, its fields in the order of the table's columns."""

    lane: int
    position: int
    event_id: UUID
    petition_id: str
    signature_id: UUID
    kind: Kind
    delta: int
    country: str
    signed_at: datetime
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """A sign command that does not count."""

    submission: Submission
    outcome: Literal["duplicate", "rejected"]
    """``duplicate`` or ``rejected``."""
    reason: str
    submitted_at: datetime
    """Of the signature as it was first decided: a client's retry comes with a later time, and says the same event."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a batch."""

    ledger: list[LedgerRow]
    """Every change of a count that this batch must publish, replayed ones included, by lane and position."""
    refused: list[Refused]
    pending: int
    replays: frozenset[UUID]
    """Event ids of commands that had been decided before."""
    not_applicable: int
    """Commands about a signature that is not there or not in a state for them; they change nothing."""


_INSERT_SIGNATURES = """
INSERT INTO signatures (signature_id, signer_key, petition_id, state, reason, country, submitted_at)
SELECT signature_id, signer_key, petition_id, state, reason, country, submitted_at
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
     WITH ORDINALITY AS s (signature_id, signer_key, petition_id, state, reason, country, submitted_at, place)
ORDER BY place  -- of two signatures of one signer in a batch, the first stands
ON CONFLICT DO NOTHING
RETURNING signature_id
"""

_STORED_SIGNATURES = (
    "SELECT signature_id, state, reason, submitted_at FROM signatures WHERE signature_id = ANY($1::uuid[])"
)

_CONFIRM = """
UPDATE signatures SET state = 'verified', decided_at = now()
WHERE signature_id = ANY($1::uuid[]) AND state = 'pending'
RETURNING signature_id, petition_id, country, submitted_at, 'verified' AS state, 'pending' AS state_before
"""

_REVOKE = """
WITH standing AS (
    SELECT signature_id, state AS state_before FROM signatures
    WHERE signature_id = ANY($1::uuid[]) AND state IN ('pending', 'verified')
    FOR UPDATE
)
UPDATE signatures s SET state = $2, decided_at = now()
FROM standing WHERE s.signature_id = standing.signature_id
RETURNING s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, standing.state_before
"""

# A join against the lanes, not max() with GROUP BY: each is one step down the primary key, however long the lane is.
_LAST_POSITIONS = """
SELECT wanted.lane,
       coalesce((SELECT position FROM ledger WHERE ledger.lane = wanted.lane ORDER BY position DESC LIMIT 1), 0) AS position
FROM unnest($1::int[]) AS wanted (lane)
"""

_APPEND_LEDGER = """
INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::smallint[], $8::text[],
                     $9::timestamptz[], $10::timestamptz[])
"""

_LEDGER_OF_EVENTS = """
SELECT lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at
FROM ledger WHERE event_id = ANY($1::uuid[])
"""


class VerifyStore:
    """The signatures and the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, batch: Sequence[tuple[Submission, Judgement | None]]) -> Decided:
        """Decide a batch in one transaction, and append what counts to the ledger.

        Args:
            batch: Commands in the order of arrival; sign commands with their judgement, the others with None.

        Raises:
            LaneTaken: another verify owns a lane of this batch; nothing was changed.
            asyncpg.PostgresError, OSError: nothing was changed.
        """
        judgements: dict[UUID, Judgement] = {}
        for submission, judgement in batch:
            if judgement is not None:
                judgements.setdefault(submission.event_id, judgement)  # a retry may come after the petition closed
        work = _Work()
        try:
            async with self._database.pool.acquire() as connection, connection.transaction():
                for turn in in_rounds(_first_of_each([submission for submission, _ in batch])):
                    signs = [submission for submission in turn if is_sign(submission)]
                    changes = [submission for submission in turn if not is_sign(submission)]
                    if signs:
                        await _apply_signs(connection, signs, judgements, work)
                    if changes:
                        await _apply_changes(connection, changes, work)
                new = await _append(connection, work.changes)
                replayed = await _replayed(connection, work.replays | work.unmatched)
                await failpoint("verify.before_commit")
        except asyncpg.UniqueViolationError as collision:
            if collision.constraint_name in ("ledger_pkey", "ledger_event"):
                raise LaneTaken("another verify wrote to this lane") from collision
            raise
        if not replayed:  # nearly always
            return Decided(new, work.refused, work.pending, frozenset(work.replays), len(work.unmatched))
        # A row of a lane that the command did not come in here (it was sent again, and partitions were added meanwhile) is
        # published by that lane's own reader, in that lane's order. Publishing it here could overtake a row before it,
        # and the readers' fences would drop that one for ever.
        here = {(submission.event_id, submission.lane) for submission, _ in batch}
        mine = new + [row for row in replayed if (row.event_id, row.lane) in here]
        ledger = sorted(mine, key=lambda row: (row.lane, row.position))
        known = work.replays | {row.event_id for row in replayed}
        return Decided(ledger, work.refused, work.pending, frozenset(known), len(work.unmatched - known))


class _Work:
    """What a transaction has gathered so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.refused: list[Refused] = []
        self.replays: set[UUID] = set()
        """Sign commands that are stored already."""
        self.unmatched: set[UUID] = set()
        """Other commands that changed nothing: replays if the ledger knows them, otherwise not applicable."""
        self.pending = 0


def _first_of_each(submissions: Sequence[Submission]) -> list[Submission]:
    """Of a command that is in the batch more than once (a client's retry), the first; the others say the same."""
    first: dict[UUID, Submission] = {}
    for submission in submissions:
        first.setdefault(submission.event_id, submission)
    return list(first.values())


async def _apply_signs(
    connection: Any, signs: list[Submission], judgements: dict[UUID, Judgement], work: _Work
) -> None:
    rows = [_signature_row(submission, judgements[submission.event_id]) for submission in signs]
    inserted = await _insert_signatures(connection, rows)
    new = signs if len(inserted) == len(signs) else [each for each in signs if each.event_id in inserted]
    for submission in new:
        _note_new(submission, judgements[submission.event_id], work)
    if len(new) == len(signs):
        return
    left = [submission for submission in signs if submission.event_id not in inserted]
    # What was not inserted is either known by its id (a replay) or lost against another signature of its signer.
    stored = {
        row["signature_id"]: row
        for row in await connection.fetch(_STORED_SIGNATURES, [submission.event_id for submission in left])
    }
    duplicates = [submission for submission in left if submission.event_id not in stored]
    verdict = Judgement("duplicate", Reason.ALREADY_SIGNED)
    recorded = await _insert_signatures(connection, [_signature_row(submission, verdict) for submission in duplicates])
    if len(recorded) < len(duplicates):
        raise LaneTaken("another verify decided a signature of this batch meanwhile")
    for submission in left:
        row = stored.get(submission.event_id)
        if row is None:
            work.refused.append(_refused(submission, "duplicate", Reason.ALREADY_SIGNED))
            continue
        work.replays.add(submission.event_id)
        if row["state"] in ("duplicate", "rejected"):
            work.refused.append(Refused(submission, row["state"], row["reason"], row["submitted_at"]))


def _refused(submission: Submission, outcome: Literal["duplicate", "rejected"], reason: Reason) -> Refused:
    assert isinstance(submission.command, SignCommand)
    return Refused(submission, outcome, reason, submission.moment)


def _note_new(submission: Submission, judgement: Judgement, work: _Work) -> None:
    command = submission.command
    assert isinstance(command, SignCommand)
    if judgement.state == "rejected":
        assert judgement.reason is not None
        work.refused.append(_refused(submission, "rejected", judgement.reason))
    elif judgement.state == "pending":
        work.pending += 1
    else:
        work.changes.append(
            Change(
                submission,
                kind="verified",
                delta=1,
                petition_id=command.petition_id,
                signature_id=command.signature_id,
                country=command.country,
                signed_at=submission.moment,
                occurred_at=submission.moment,
            )
        )


async def _apply_changes(connection: Any, changes: list[Submission], work: _Work) -> None:
    for command_type, statement, arguments in (
        (ConfirmCommand, _CONFIRM, ()),
        (WithdrawCommand, _REVOKE, ("withdrawn",)),
        (InvalidateCommand, _REVOKE, ("invalidated",)),
    ):
        wanted = {change.command.signature_id: change for change in changes if isinstance(change.command, command_type)}
        if not wanted:
            continue
        changed = await connection.fetch(statement, list(wanted), *arguments)
        for row in changed:
            submission = wanted.pop(row["signature_id"])
            if row["state"] == "verified" or row["state_before"] == "verified":
                work.changes.append(_change_of(submission, row))
        work.unmatched.update(submission.event_id for submission in wanted.values())


def _change_of(submission: Submission, row: Any) -> Change:
    assert not isinstance(submission.command, SignCommand)
    return Change(
        submission,
        kind=row["state"],
        delta=1 if row["state"] == "verified" else -1,
        petition_id=row["petition_id"],
        signature_id=row["signature_id"],
        country=row["country"],
        signed_at=row["submitted_at"],
        occurred_at=submission.moment,
    )


async def _append(connection: Any, changes: list[Change]) -> list[LedgerRow]:
    """Give each change the next position of its lane, and append. The primary key refuses a position that is taken."""
    if not changes:
        return []
    ordered = in_lane_order(changes)
    lanes = sorted({change.submission.lane for change in ordered})
    last = {row["lane"]: row["position"] for row in await connection.fetch(_LAST_POSITIONS, lanes)}
    rows = []
    for change in ordered:
        lane = change.submission.lane
        last[lane] += 1
        rows.append(
            LedgerRow(
                lane,
                last[lane],
                change.submission.event_id,
                change.petition_id,
                change.signature_id,
                change.kind,
                change.delta,
                change.country,
                change.signed_at,
                change.occurred_at,
            )
        )
    await connection.execute(_APPEND_LEDGER, *(list(column) for column in zip(*rows, strict=True)))
    return rows


async def _replayed(connection: Any, event_ids: set[UUID]) -> list[LedgerRow]:
    if not event_ids:
        return []
    return [LedgerRow(*row) for row in await connection.fetch(_LEDGER_OF_EVENTS, list(event_ids))]


def _signature_row(submission: Submission, judgement: Judgement) -> tuple[Any, ...]:
    command = submission.command
    assert isinstance(command, SignCommand)
    return (
        command.signature_id,
        submission.signer_key,
        command.petition_id,
        judgement.state,
        judgement.reason,
        command.country,
        submission.moment,
    )


async def _insert_signatures(connection: Any, rows: list[tuple[Any, ...]]) -> set[UUID]:
    if not rows:
        return set()
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {row["signature_id"] for row in await connection.fetch(_INSERT_SIGNATURES, *columns)}
