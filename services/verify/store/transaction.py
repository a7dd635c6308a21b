"""One transaction per batch, set-based and idempotent.

After a crash before the commit, nothing has changed. After a crash after it, the batch is redelivered and every command is
already decided: `VerifyStore.apply` then returns what is stored, including positions.

The ledger is authoritative. A command whose event is in the ledger is a replay, even if the row of its signature was deleted
or edited by hand: nothing is written for it. A command that contradicts its ledger row is set aside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from services.verify.deciding.outcome import Decided, Gathered, first_of_each, shared_ids
from services.verify.deciding.rules import Judgement, SubmittedCommand, in_rounds, is_sign
from services.verify.store.changing import apply_changes, duplicates_named
from services.verify.store.errors import LaneTaken, set_aside
from services.verify.store.ledger import append, replayed
from services.verify.store.signing import apply_signs
from shared.postgres import Database
from shared.runtime.failpoints import failpoint

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
        set_aside(shared_ids(submissions))
        decided: set[UUID] = set()
        while True:  # each round knows more events to be in the ledger
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
        gathered = Gathered(decided)
        todo = first_of_each(batch)
        if decided:
            todo = [submission for submission in todo if submission.event_id not in decided]
        async with self._database.pool.acquire() as connection, connection.transaction():
            for turn in in_rounds(todo):
                signs = [submission for submission in turn if is_sign(submission)]
                changes = [submission for submission in turn if not is_sign(submission)]
                if signs:
                    await apply_signs(connection, signs, judgements, gathered)
                if changes:
                    await apply_changes(connection, changes, gathered)
            new = await append(connection, gathered.changes)
            before = await replayed(connection, gathered.to_look_up())
            duplicates = await duplicates_named(connection, batch, before)
            set_aside(gathered.refusals(batch, before, duplicates))
            if counted := gathered.rejected & {row.event_id for row in before}:
                raise _DecidedBefore(counted)
            await failpoint("verify.before_commit")
        return gathered.decided(batch, new, before)

    async def _collided_with(
        self, collision: asyncpg.UniqueViolationError, batch: Sequence[SubmittedCommand], decided: set[UUID]
    ) -> set[UUID]:
        """After a collision and rollback, the events of the batch that are in the ledger.

        Raises:
            LaneTaken: none is, so another process wrote other events to the lane.
            asyncpg.UniqueViolationError: the collision is not in the ledger.
        """
        if collision.table_name != "ledger":
            raise collision
        if collision.constraint_name != "ledger_pkey":
            events = {submission.event_id for submission in batch} - decided
            async with self._database.pool.acquire() as connection:
                found = {row.event_id for row in await replayed(connection, events)}
            if found:
                return found
        raise LaneTaken(f"another verify wrote to this lane: {_taken(collision)}") from collision


def _taken(collision: asyncpg.UniqueViolationError) -> str:
    """A collision for a message: the constraint, and of its detail only the numbers of lane and position."""
    place = _TAKEN_PLACE.match(collision.detail or "")
    where = f", lane {place[1]}, position {place[2]}" if place else ""
    return f"constraint {collision.constraint_name}{where}"


class _DecidedBefore(Exception):
    """The ledger has events that the transaction decided as new. It is rolled back, and repeated without them."""

    def __init__(self, event_ids: set[UUID]) -> None:
        super().__init__(f"{len(event_ids)} events")
        self.event_ids = event_ids
