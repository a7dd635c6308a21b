"""All SQL of verify: one transaction per batch, set-based, safe to repeat.

Killed before the commit, nothing happened. Killed after it, the same batch comes again and finds every command decided:
`apply` then answers with what is stored, positions included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import asyncpg

from services.verify.decide import Change, Judgement, Kind, Reason, Submission, in_lane_order, in_rounds, is_sign
from shared.events import ConfirmCommand, EraseCommand, InvalidateCommand, SignCommand, WithdrawCommand
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


class Mismatch(NamedTuple):
    """A command whose signature is another signer's or petition's than it says. It changes nothing."""

    submission: Submission
    field: Literal["petition_id", "signer_key"]
    """What differs; the petition, if both do."""


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
    mismatched: list[Mismatch] = field(default_factory=list)
    erased: int = 0
    """Signatures that this batch erased; those that were erased before are replays."""


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

# What a change command says of itself is checked against the row: the petition, and whose signature it is. The row of an
# erased signature is nobody's; a command that was under way when it was erased still has the old key, so any key will do.
_CONFIRM = """
UPDATE signatures s SET state = 'verified', decided_at = now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
WHERE s.signature_id = w.signature_id AND s.petition_id = w.petition_id
  AND (s.signer_key = w.signer_key OR s.erased_at IS NOT NULL) AND s.state = 'pending'
RETURNING w.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, 'pending' AS state_before
"""

_REVOKE = """
WITH standing AS (
    SELECT w.place, s.signature_id, s.state AS state_before
    FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
    JOIN signatures s ON s.signature_id = w.signature_id AND s.petition_id = w.petition_id
    WHERE (s.signer_key = w.signer_key OR s.erased_at IS NOT NULL) AND s.state IN ('pending', 'verified')
    FOR UPDATE OF s
)
UPDATE signatures s SET state = $4, decided_at = now()
FROM standing WHERE s.signature_id = standing.signature_id
RETURNING standing.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, standing.state_before
"""

# State, country and time stay: they are what the count, its break-downs and a later withdrawal need. The row stays: its id
# makes a repeated request a replay.
_ERASE = """
WITH erased AS (
    UPDATE signatures s SET signer_key = gen_random_uuid(), erased_at = now()
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[])
         WITH ORDINALITY AS w (signature_id, petition_id, signer_key, actor, reason, requested_at, place)
    WHERE s.signature_id = w.signature_id AND s.petition_id = w.petition_id
      AND s.signer_key = w.signer_key AND s.erased_at IS NULL
    RETURNING w.place, s.signature_id, s.petition_id, w.actor, w.reason, w.requested_at, s.erased_at
), noted AS (
    INSERT INTO erasures (signature_id, petition_id, actor, reason, requested_at, erased_at)
    SELECT signature_id, petition_id, actor, reason, requested_at, erased_at FROM erased
)
SELECT place FROM erased
"""

_WHOSE = "SELECT signature_id, petition_id, signer_key, erased_at FROM signatures WHERE signature_id = ANY($1::uuid[])"

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
                replayed = await _replayed(connection, work.unknown())
                await failpoint("verify.before_commit")
        except asyncpg.UniqueViolationError as collision:
            if collision.constraint_name in ("ledger_pkey", "ledger_event"):
                raise LaneTaken("another verify wrote to this lane") from collision
            raise
        if not replayed:  # nearly always
            return Decided(
                new,
                work.refused,
                work.pending,
                frozenset(work.replays),
                len(work.unmatched),
                work.mismatched,
                work.erased,
            )
        # A row of a lane that the command did not come in here (it was sent again, and partitions were added meanwhile) is
        # published by that lane's own reader, in that lane's order. Publishing it here could overtake a row before it,
        # and the readers' fences would drop that one for ever.
        here = {(submission.event_id, submission.lane) for submission, _ in batch}
        mine = new + [row for row in replayed if (row.event_id, row.lane) in here]
        ledger = sorted(mine, key=lambda row: (row.lane, row.position))
        known = work.replays | {row.event_id for row in replayed}
        mismatched = [one for one in work.mismatched if one.submission.event_id not in known]
        return Decided(
            ledger,
            work.refused,
            work.pending,
            frozenset(known),
            len(work.unmatched - known),
            mismatched,
            work.erased,
        )


class _Work:
    """What a transaction has gathered so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.refused: list[Refused] = []
        self.replays: set[UUID] = set()
        """Sign commands that are stored already, and erasures that were carried out."""
        self.unmatched: set[UUID] = set()
        """Other commands that changed nothing: replays if the ledger knows them, otherwise not applicable."""
        self.mismatched: list[Mismatch] = []
        """Replays too if the ledger knows them."""
        self.erased = 0
        self.pending = 0

    def unknown(self) -> set[UUID]:
        """Commands that changed nothing, and may be in the ledger."""
        if not (self.replays or self.unmatched or self.mismatched):  # nearly always
            return set()
        # A record that took another one's id beside it: what this batch decided is no replay.
        decided = {change.submission.event_id for change in self.changes}
        self.unmatched -= decided
        return self.replays | self.unmatched | {one.submission.event_id for one in self.mismatched} - decided


def _first_of_each(submissions: Sequence[Submission]) -> list[Submission]:
    """Of a command that is in the batch more than once (a client's retry), the first; the others say the same.

    Change commands that say otherwise, of one id, are all kept: a forged one must not stand in for the true one.
    """
    first: dict[UUID | tuple[UUID, UUID, str], Submission] = {}
    for submission in submissions:
        known = first.setdefault(submission.event_id, submission)
        if known is submission or is_sign(submission):
            continue
        claims = submission.event_id, submission.signer_key, submission.command.petition_id
        if claims != (known.event_id, known.signer_key, known.command.petition_id):
            first.setdefault(claims, submission)
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
        wanted = [change for change in changes if isinstance(change.command, command_type)]
        if not wanted:
            continue
        changed = await connection.fetch(statement, *_claims_of(wanted), *arguments)
        for row in changed:
            if row["state"] == "verified" or row["state_before"] == "verified":
                work.changes.append(_change_of(wanted[row["place"] - 1], row))
        await _explain_the_rest(connection, wanted, {row["place"] for row in changed}, work)
    await _apply_erasures(connection, [change for change in changes if isinstance(change.command, EraseCommand)], work)


async def _apply_erasures(connection: Any, wanted: list[Submission], work: _Work) -> None:
    if not wanted:
        return
    commands = [change.command for change in wanted if isinstance(change.command, EraseCommand)]
    words = [(command.actor, command.reason, change.moment) for command, change in zip(commands, wanted, strict=True)]
    erased = await connection.fetch(_ERASE, *_claims_of(wanted), *(list(column) for column in zip(*words, strict=True)))
    work.erased += len(erased)
    await _explain_the_rest(connection, wanted, {row["place"] for row in erased}, work)


def _claims_of(changes: Sequence[Submission]) -> tuple[list[UUID], list[str], list[UUID]]:
    """What commands say of themselves, as columns: which signature, of which petition, whose."""
    return (
        [change.command.signature_id for change in changes],
        [change.command.petition_id for change in changes],
        [change.signer_key for change in changes],
    )


async def _explain_the_rest(connection: Any, wanted: list[Submission], done: set[int], work: _Work) -> None:
    """Tell apart why commands changed nothing: done before, about another signer's or petition's, or not applicable."""
    left = [change for place, change in enumerate(wanted, 1) if place not in done]
    if not left:
        return
    ids = [change.command.signature_id for change in left]
    rows = {row["signature_id"]: row for row in await connection.fetch(_WHOSE, ids)}
    # One command erased it in this statement; another of the same round has another key, and was forged.
    erased_here = {
        wanted[place - 1].command.signature_id for place in done if isinstance(wanted[place - 1].command, EraseCommand)
    }
    for change in left:
        row = rows.get(change.command.signature_id)
        if row is None:
            work.unmatched.add(change.event_id)
        elif row["petition_id"] != change.command.petition_id:
            work.mismatched.append(Mismatch(change, "petition_id"))
        elif change.command.signature_id in erased_here or (
            row["erased_at"] is None and row["signer_key"] != change.signer_key
        ):
            work.mismatched.append(Mismatch(change, "signer_key"))
        elif isinstance(change.command, EraseCommand):
            work.replays.add(change.event_id)
        else:
            work.unmatched.add(change.event_id)


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
