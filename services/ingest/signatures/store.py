"""Reads signatures from PostgreSQL: the views `outcomes`, `command_targets` and `ledger_events` of verify's tables."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.postgres import Database

_ANSWER_SECONDS = 5.0
"""A lookup by primary key takes a millisecond; after this time PostgreSQL counts as away, because a person waits."""

_FIND = """
SELECT signature_id, signer_key, petition_id, state, reason, decided_at, erased_at
FROM outcomes
WHERE signature_id = $1
"""

_FIND_TARGET = """
SELECT signer_key, petition_id, state, EXISTS (SELECT FROM ledger_events WHERE event_id = $2) AS carried_out
FROM command_targets
WHERE signature_id = $1
"""


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """The signature to which a command applies."""

    signer_key: UUID
    """The signer key of the signature that the command names."""
    petition_id: str
    state: str
    """The state of the signature to which the command applies; for a duplicate, that of the original."""
    carried_out: bool
    """Whether this same command changed a count before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """verify's decision on a signature."""

    signature_id: UUID
    signer_key: UUID
    petition_id: str
    state: str
    reason: str | None
    decided_at: datetime
    erased_at: datetime | None
    """When an operator erased the signer; None if that never happened."""


class OutcomeStore:
    """Looks outcomes up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, signature_id: UUID) -> Outcome | None:
        """The outcome of a signature, or None when it is not decided (or was never submitted).

        Raises:
            Exception: PostgreSQL did not answer; `shared.runtime.failures.is_transient` distinguishes that from a bug.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            row = await self._database.pool.fetchrow(_FIND, signature_id)
        if row is None:
            return None
        # asyncpg's own UUID class is a subclass that the standard library's hash functions take as well.
        return Outcome(**dict(row))

    async def find_target(self, signature_id: UUID, event_id: UUID) -> CommandTarget | None:
        """The signature to which the command `event_id` applies, or None if it is not decided.

        Raises:
            Exception: as `find`.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            row = await self._database.pool.fetchrow(_FIND_TARGET, signature_id, event_id)
        return None if row is None else CommandTarget(**dict(row))
