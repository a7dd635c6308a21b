"""All SQL of verify: one transaction per batch, set-based, safe to repeat.

Killed before the commit, nothing happened. Killed after it, the same batch comes again and finds every command decided:
`apply` then answers with what is stored, positions included.

The ledger decides what is decided. A command whose event is in the ledger is a replay, also when the row of its signature
was deleted or edited by hand: nothing is written for it. A command that contradicts its row of the ledger is set aside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg

from services.verify.deciding.rules import (
    Change,
    Judgement,
    Kind,
    Reason,
    SubmittedCommand,
    in_lane_order,
    in_rounds,
    is_sign,
)
from shared.contract.events import (
    Command,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    SignCommand,
    WithdrawCommand,
)
from shared.kafka.errors import CANNOT_BE_APPLIED, Collision, InvalidRecord, SetAside
from shared.postgres import Database
from shared.runtime.failpoints import failpoint


class LaneTaken(Collision):
    """Another verify wrote to one of our lanes meanwhile. Everything was rolled back.

    Decided again, what the other one decided is found as decided. If it owns the lane now, our commit of the offsets will
    be refused and the batch given up. If it never passes, there is no other one, and the consumer splits the batch.
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
class RefusedSignature:
    """A sign command that does not count."""

    submission: SubmittedCommand
    outcome: Literal["duplicate", "rejected"]
    """``duplicate`` or ``rejected``."""
    reason: str
    submitted_at: datetime
    """Of the signature as it was first decided: a client's retry comes with a later time, and says the same event."""


class Mismatch(NamedTuple):
    """A command whose signature is another signer's or petition's than it says. It changes nothing."""

    submission: SubmittedCommand
    field: Literal["petition_id", "signer_key"]
    """What differs; the petition, if both do."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of a batch."""

    ledger: list[LedgerRow]
    """Every change of a count that this batch must publish, replayed ones included, by lane and position."""
    refused: list[RefusedSignature]
    pending: int
    replays: frozenset[UUID]
    """Event ids of commands that had been decided before."""
    not_applicable: Counter[str]
    """How many commands changed nothing, by the state of the signature that they are about: ``unknown`` if it is not there,
    ``duplicate`` if it is a duplicate of one that is not known."""
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

# What a duplicate is a duplicate of is decided with it, once and for all.
_INSERT_DUPLICATES = """
INSERT INTO signatures (signature_id, signer_key, petition_id, state, reason, country, submitted_at, duplicate_of)
SELECT signature_id, signer_key, petition_id, state, reason, country, submitted_at,
       (SELECT s.signature_id FROM signatures s
        WHERE s.signer_key = d.signer_key AND s.state IN ('pending', 'verified', 'invalidated') LIMIT 1)
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
     AS d (signature_id, signer_key, petition_id, state, reason, country, submitted_at)
ON CONFLICT DO NOTHING
RETURNING signature_id
"""

# One row for each signature that is asked for; state is null where it is not stored.
_STORED_SIGNATURES = """
SELECT wanted.signature_id, s.signer_key, s.petition_id, s.state, s.reason, s.submitted_at, s.erased_at,
       EXISTS (SELECT FROM ledger WHERE ledger.event_id = wanted.signature_id) AS in_ledger
FROM unnest($1::uuid[]) AS wanted (signature_id)
LEFT JOIN signatures s ON s.signature_id = wanted.signature_id
"""

# What a change command says of itself is checked against the row that it names: the petition, and whose signature it is. The
# row of an erased signature is nobody's; a command that was under way when it was erased still has the old key, so any key
# will do. A command that names a duplicate is about the signature that it is a duplicate of.
_CONFIRM = """
UPDATE signatures s SET state = 'verified', decided_at = now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
JOIN signatures named ON named.signature_id = w.signature_id AND named.petition_id = w.petition_id
                     AND (named.signer_key = w.signer_key OR named.erased_at IS NOT NULL)
WHERE s.signature_id = coalesce(named.duplicate_of, named.signature_id) AND s.petition_id = w.petition_id
  AND s.state = 'pending'
RETURNING w.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, 'pending' AS state_before
"""

_REVOKE = """
WITH standing AS (
    SELECT w.place, s.signature_id, s.state AS state_before
    FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
    JOIN signatures named ON named.signature_id = w.signature_id AND named.petition_id = w.petition_id
                         AND (named.signer_key = w.signer_key OR named.erased_at IS NOT NULL)
    JOIN signatures s ON s.signature_id = coalesce(named.duplicate_of, named.signature_id)
                     AND s.petition_id = w.petition_id
    WHERE s.state IN ('pending', 'verified')
    FOR UPDATE OF s
)
UPDATE signatures s SET state = $4, decided_at = now()
FROM standing WHERE s.signature_id = standing.signature_id
RETURNING standing.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, standing.state_before
"""

# State, country and time stay: they are what the count, its break-downs and a later withdrawal need. The row stays: its id
# makes a repeated request a replay. Whichever of a signature and its duplicates is named, all of them are erased: each has
# the signer's key.
_ERASE = """
WITH named AS (
    SELECT w.place, w.actor, w.reason, w.requested_at, s.petition_id,
           coalesce(s.duplicate_of, s.signature_id) AS first, s.signature_id
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[])
         WITH ORDINALITY AS w (signature_id, petition_id, signer_key, actor, reason, requested_at, place)
    JOIN signatures s ON s.signature_id = w.signature_id AND s.petition_id = w.petition_id
                     AND s.signer_key = w.signer_key AND s.erased_at IS NULL
), theirs AS (
    SELECT named.*, named.first AS other FROM named
    UNION SELECT named.*, named.signature_id FROM named
    UNION SELECT named.*, d.signature_id FROM named JOIN signatures d ON d.duplicate_of = named.first
), erased AS (
    UPDATE signatures s SET signer_key = gen_random_uuid(), erased_at = now()
    FROM theirs
    WHERE s.signature_id = theirs.other AND s.petition_id = theirs.petition_id AND s.erased_at IS NULL
    RETURNING theirs.place, s.signature_id, s.petition_id, theirs.actor, theirs.reason, theirs.requested_at, s.erased_at
), noted AS (
    INSERT INTO erasures (signature_id, petition_id, actor, reason, requested_at, erased_at)
    SELECT signature_id, petition_id, actor, reason, requested_at, erased_at FROM erased
)
SELECT place, signature_id FROM erased
"""

_WHOSE = """
SELECT named.signature_id, named.petition_id, named.signer_key, named.erased_at,
       coalesce(target.state, named.state) AS state
FROM signatures named LEFT JOIN signatures target ON target.signature_id = named.duplicate_of
WHERE named.signature_id = ANY($1::uuid[])
"""

_DUPLICATE_OF = """
SELECT signature_id, duplicate_of FROM signatures WHERE signature_id = ANY($1::uuid[]) AND duplicate_of IS NOT NULL
"""

# A join against the lanes, not max() with GROUP BY: each is one step down the primary key, however long the lane is.
# 2^52 bounds the positions as in 0007_ledger_bounds.sql: what is beyond was written by hand, and is not counted on from.
_LAST_POSITIONS = """
SELECT wanted.lane,
       coalesce((SELECT position FROM ledger
                 WHERE ledger.lane = wanted.lane AND position BETWEEN 1 AND 4503599627370496
                 ORDER BY position DESC LIMIT 1), 0) AS position
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


_KINDS: Final[dict[type[Command], Kind]] = {
    SignCommand: "verified",
    ConfirmCommand: "verified",
    WithdrawCommand: "withdrawn",
    InvalidateCommand: "invalidated",
}
"""What each command is in the ledger, if it changes a count."""

UNKNOWN: Final = "unknown"
"""The state, so to say, of a signature that is not there."""

_TAKEN_PLACE = re.compile(r'Key \(lane, "?position"?\)=\((\d+), (\d+)\)')


class VerifyStore:
    """The signatures and the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, batch: Sequence[tuple[SubmittedCommand, Judgement | None]]) -> Decided:
        """Decide a batch in one transaction, and append what counts to the ledger.

        Args:
            batch: Commands in the order of arrival; sign commands with their judgement, the others with None.

        Raises:
            LaneTaken: another verify owns a lane of this batch; nothing was changed.
            SetAside: commands contradict what is stored; nothing was changed.
            asyncpg.PostgresError, OSError: nothing was changed.
        """
        judgements: dict[UUID, Judgement] = {}
        for submission, judgement in batch:
            if judgement is not None:
                judgements.setdefault(submission.event_id, judgement)  # a retry may come after the petition closed
        submissions = [submission for submission, _ in batch]
        _look_for_shared_ids(submissions)
        decided: set[UUID] = set()
        while True:  # each time with more events that are known to be in the ledger
            try:
                return await self._decide(submissions, judgements, decided)
            except _DecidedBefore as found:
                decided |= found.event_ids
            except asyncpg.UniqueViolationError as collision:
                decided |= await self._collided_with(collision, submissions, decided)

    async def _decide(
        self, batch: Sequence[SubmittedCommand], judgements: dict[UUID, Judgement], decided: set[UUID]
    ) -> Decided:
        """Decide a batch. Nothing is written for events in `decided`: the ledger has them."""
        work = _Work()
        work.replays |= decided
        todo = _first_of_each(batch)
        if decided:
            todo = [submission for submission in todo if submission.event_id not in decided]
        async with self._database.pool.acquire() as connection, connection.transaction():
            for turn in in_rounds(todo):
                signs = [submission for submission in turn if is_sign(submission)]
                changes = [submission for submission in turn if not is_sign(submission)]
                if signs:
                    await _apply_signs(connection, signs, judgements, work)
                if changes:
                    await _apply_changes(connection, changes, work)
            new = await _append(connection, work.changes)
            replayed = await _replayed(connection, work.unknown() | work.rejected)
            duplicates = await _duplicates(connection, batch, replayed)
            _look_for_contradictions(batch, replayed, duplicates, work)
            await failpoint("verify.before_commit")
        if not replayed:  # nearly always
            return Decided(
                new,
                work.refused,
                work.pending,
                frozenset(work.replays),
                Counter(work.unmatched.values()),
                work.mismatched,
                work.erased,
            )
        # A row of a lane that the command did not come in here (it was sent again, and partitions were added meanwhile) is
        # published by that lane's own reader, in that lane's order. Publishing it here could overtake a row before it,
        # and the readers' fences would drop that one for ever.
        here = {(submission.event_id, submission.lane) for submission in batch}
        mine = new + [row for row in replayed if (row.event_id, row.lane) in here]
        ledger = sorted(mine, key=lambda row: (row.lane, row.position))
        known = work.replays | {row.event_id for row in replayed}
        mismatched = [one for one in work.mismatched if one.submission.event_id not in known]
        return Decided(
            ledger,
            work.refused,
            work.pending,
            frozenset(known),
            Counter(state for event_id, state in work.unmatched.items() if event_id not in known),
            mismatched,
            work.erased,
        )

    async def _collided_with(
        self, collision: asyncpg.UniqueViolationError, batch: Sequence[SubmittedCommand], decided: set[UUID]
    ) -> set[UUID]:
        """The events of the batch that the ledger turns out to have. The transaction that collided is rolled back.

        Raises:
            LaneTaken: it has none of them, so a rival wrote something else.
            asyncpg.UniqueViolationError: this is not about the ledger.
        """
        if collision.table_name != "ledger":
            raise collision
        if collision.constraint_name != "ledger_pkey":
            events = {submission.event_id for submission in batch} - decided
            async with self._database.pool.acquire() as connection:
                found = {row.event_id for row in await _replayed(connection, events)}
            if found:
                return found
        raise LaneTaken(f"another verify wrote to this lane: {_taken(collision)}") from collision


def _taken(collision: asyncpg.UniqueViolationError) -> str:
    """What a collision was about: the constraint, and of the detail only the numbers of a lane and a position."""
    place = _TAKEN_PLACE.match(collision.detail or "")
    where = f", lane {place[1]}, position {place[2]}" if place else ""
    return f"constraint {collision.constraint_name}{where}"


class _DecidedBefore(Exception):
    """The ledger has events that the transaction decided as if they were new. It is rolled back, and done without them."""

    def __init__(self, event_ids: set[UUID]) -> None:
        super().__init__(f"{len(event_ids)} events")
        self.event_ids = event_ids


def _look_for_contradictions(
    batch: Sequence[SubmittedCommand], replayed: Iterable[LedgerRow], duplicates: Mapping[UUID, UUID], work: _Work
) -> None:
    """Compare commands with the rows that the ledger has of their events.

    Args:
        duplicates: Of the signatures that commands name, the duplicates, and what they are duplicates of.

    Raises:
        SetAside: a row is about something else than the command, or a stored signature is.
        _DecidedBefore: a sign command was refused just now that the ledger counts.
    """
    rows = {row.event_id: row for row in replayed}
    refused = {}
    for place, submission in enumerate(batch) if rows or work.contradictions else ():
        why = work.contradictions.get(submission.event_id)
        row = rows.get(submission.event_id)
        if row is not None and not _is_about(row, submission, duplicates):
            why = f"its event is in the ledger for something else: lane {row.lane}, position {row.position}"
        if why is not None:
            refused[place] = InvalidRecord(CANNOT_BE_APPLIED, why)
    if refused:
        raise SetAside(refused)
    if counted := work.rejected & rows.keys():
        raise _DecidedBefore(counted)


def _is_about(row: LedgerRow, submission: SubmittedCommand, duplicates: Mapping[UUID, UUID]) -> bool:
    command = submission.command
    named = command.signature_id
    if row.signature_id not in (named, duplicates.get(named)) or row.kind != _KINDS.get(type(command)):
        return False
    # A change takes its petition from the stored signature. What the command says of it decides nothing.
    return not isinstance(command, SignCommand) or row.petition_id == command.petition_id


class _Work:
    """What a transaction has gathered so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.refused: list[RefusedSignature] = []
        self.replays: set[UUID] = set()
        """Sign commands that are stored already, and erasures that were carried out."""
        self.unmatched: dict[UUID, str] = {}
        """Other commands that changed nothing, and the state that kept them from it: replays if the ledger knows them,
        otherwise not applicable."""
        self.rejected: set[UUID] = set()
        """Sign commands that were stored as rejected just now."""
        self.contradictions: dict[UUID, str] = {}
        """Sign commands that contradict what is stored under their id, and in what."""
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
        self.unmatched = {event_id: state for event_id, state in self.unmatched.items() if event_id not in decided}
        return self.replays | self.unmatched.keys() | {one.submission.event_id for one in self.mismatched} - decided


def _first_of_each(submissions: Sequence[SubmittedCommand]) -> list[SubmittedCommand]:
    """Of a command that is in the batch more than once (a client's retry), the first; the others say the same.

    Change commands that say otherwise, of one id, are all kept: a forged one must not stand in for the true one.
    """
    first: dict[UUID | tuple[UUID, UUID, str], SubmittedCommand] = {}
    for submission in submissions:
        known = first.setdefault(submission.event_id, submission)
        if known is submission or is_sign(submission):
            continue
        claims = submission.event_id, submission.signer_key, submission.command.petition_id
        if claims != (known.event_id, known.signer_key, known.command.petition_id):
            first.setdefault(claims, submission)
    return list(first.values())


def _look_for_shared_ids(batch: Sequence[SubmittedCommand]) -> None:
    """Look for sign commands that share their id with an earlier one of another signer or petition.

    Raises:
        SetAside: there are some.
    """
    if len({submission.event_id for submission in batch}) == len(batch):  # nearly always
        return
    first: dict[UUID, SubmittedCommand] = {}
    refused = {}
    for place, submission in enumerate(batch):
        one = first.setdefault(submission.event_id, submission)
        if is_sign(submission) and (submission.signer_key, submission.command.petition_id) != (
            one.signer_key,
            one.command.petition_id,
        ):
            why = "its signature_id is that of an earlier command, of another signer or petition"
            refused[place] = InvalidRecord(CANNOT_BE_APPLIED, why)
    if refused:
        raise SetAside(refused)


async def _apply_signs(
    connection: Any, signs: list[SubmittedCommand], judgements: dict[UUID, Judgement], work: _Work
) -> None:
    rows = [_signature_row(submission, judgements[submission.event_id]) for submission in signs]
    inserted = await _insert_signatures(connection, _INSERT_SIGNATURES, rows)
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
    # One that the ledger counts is no duplicate: its row was deleted, and is not to come back.
    known = {number for number, row in stored.items() if row["in_ledger"] or row["state"] is not None}
    verdict = Judgement("duplicate", Reason.ALREADY_SIGNED)
    duplicates = [_signature_row(submission, verdict) for submission in left if submission.event_id not in known]
    recorded = await _insert_signatures(connection, _INSERT_DUPLICATES, duplicates)
    if len(recorded) < len(duplicates):
        # Or, when it does not pass, something in the database refuses rows without an error: a trigger, a policy.
        raise LaneTaken("another verify decided a signature of this batch meanwhile, or its row is refused")
    for submission in left:
        if submission.event_id in known:
            _note_known(submission, stored[submission.event_id], work)
        else:
            work.refused.append(_refused(submission, "duplicate", Reason.ALREADY_SIGNED))


def _note_known(submission: SubmittedCommand, row: Any, work: _Work) -> None:
    if row["in_ledger"]:
        work.replays.add(submission.event_id)  # whatever became of its row: what was counted is answered
    elif row["petition_id"] != submission.command.petition_id or (
        row["signer_key"] != submission.signer_key and row["erased_at"] is None  # an erased one is nobody's
    ):
        work.contradictions[submission.event_id] = "its signature_id is stored for another signer or petition"
    else:
        work.replays.add(submission.event_id)
        if row["state"] in ("duplicate", "rejected") and row["reason"]:  # without a reason it was edited: none to tell
            work.refused.append(RefusedSignature(submission, row["state"], row["reason"], row["submitted_at"]))


def _refused(
    submission: SubmittedCommand, outcome: Literal["duplicate", "rejected"], reason: Reason
) -> RefusedSignature:
    assert isinstance(submission.command, SignCommand)
    return RefusedSignature(submission, outcome, reason, submission.moment)


def _note_new(submission: SubmittedCommand, judgement: Judgement, work: _Work) -> None:
    command = submission.command
    assert isinstance(command, SignCommand)
    if judgement.state == "rejected":
        assert judgement.reason is not None
        work.refused.append(_refused(submission, "rejected", judgement.reason))
        work.rejected.add(submission.event_id)
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


async def _apply_changes(connection: Any, changes: list[SubmittedCommand], work: _Work) -> None:
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


async def _apply_erasures(connection: Any, wanted: list[SubmittedCommand], work: _Work) -> None:
    if not wanted:
        return
    commands = [change.command for change in wanted if isinstance(change.command, EraseCommand)]
    words = [(command.actor, command.reason, change.moment) for command, change in zip(commands, wanted, strict=True)]
    erased = await connection.fetch(_ERASE, *_claims_of(wanted), *(list(column) for column in zip(*words, strict=True)))
    work.erased += len(erased)
    done = {row["place"] for row in erased}
    await _explain_the_rest(connection, wanted, done, work, {row["signature_id"] for row in erased})


def _claims_of(changes: Sequence[SubmittedCommand]) -> tuple[list[UUID], list[str], list[UUID]]:
    """What commands say of themselves, as columns: which signature, of which petition, whose."""
    return (
        [change.command.signature_id for change in changes],
        [change.command.petition_id for change in changes],
        [change.signer_key for change in changes],
    )


async def _explain_the_rest(
    connection: Any, wanted: list[SubmittedCommand], done: set[int], work: _Work, erased_here: Collection[UUID] = ()
) -> None:
    """Tell apart why commands changed nothing: done before, about another signer's or petition's, or not applicable.

    Args:
        erased_here: What one of the commands erased. Another one of the same round has another key, and was forged.
    """
    left = [change for place, change in enumerate(wanted, 1) if place not in done]
    if not left:
        return
    ids = [change.command.signature_id for change in left]
    rows = {row["signature_id"]: row for row in await connection.fetch(_WHOSE, ids)}
    for change in left:
        row = rows.get(change.command.signature_id)
        if row is None:
            work.unmatched[change.event_id] = UNKNOWN
        elif row["petition_id"] != change.command.petition_id:
            work.mismatched.append(Mismatch(change, "petition_id"))
        elif change.command.signature_id in erased_here or (
            row["erased_at"] is None and row["signer_key"] != change.signer_key
        ):
            work.mismatched.append(Mismatch(change, "signer_key"))
        elif isinstance(change.command, EraseCommand):
            work.replays.add(change.event_id)
        else:
            work.unmatched[change.event_id] = row["state"]


def _change_of(submission: SubmittedCommand, row: Any) -> Change:
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


def _signature_row(submission: SubmittedCommand, judgement: Judgement) -> tuple[Any, ...]:
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


async def _duplicates(
    connection: Any, batch: Sequence[SubmittedCommand], replayed: Sequence[LedgerRow]
) -> dict[UUID, UUID]:
    """Of the signatures that replayed commands name, those that are duplicates, and what they are duplicates of."""
    about = {row.event_id: row.signature_id for row in replayed}
    named = {
        one.command.signature_id
        for one in batch
        if about and about.get(one.event_id, one.command.signature_id) != one.command.signature_id
    }
    if not named:  # nearly always
        return {}
    return dict(await connection.fetch(_DUPLICATE_OF, list(named)))


async def _insert_signatures(connection: Any, statement: str, rows: list[tuple[Any, ...]]) -> set[UUID]:
    if not rows:
        return set()
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {row["signature_id"] for row in await connection.fetch(statement, *columns)}
