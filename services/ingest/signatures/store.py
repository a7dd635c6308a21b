"""What ingest reads from PostgreSQL: the views `outcomes`, `command_targets` and `ledger_events`, which verify fills."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.postgres import Database

_ANSWER_SECONDS = 5.0
"""A lookup by primary key takes a millisecond; after this long PostgreSQL is away, and a person waits."""

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
    """What a command about a signature meets."""

    signer_key: UUID
    """Of the signature that the command names."""
    petition_id: str
    state: str
    """Of the signature that the command is about: of a duplicate, the one that it is a duplicate of."""
    carried_out: bool
    """Whether this very command changed a count before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What verify decided about a signature."""

    signature_id: UUID
    signer_key: UUID
    petition_id: str
    state: str
    reason: str | None
    decided_at: datetime
    erased_at: datetime | None
    """When an operator erased who signed; None if nobody has."""


class OutcomeStore:
    """Looks outcomes up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, signature_id: UUID) -> Outcome | None:
        """The outcome of a signature, or None when it is not decided (or was never submitted).

        Raises:
            Exception: PostgreSQL did not answer; `shared.runtime.failures.is_transient` tells that from a bug.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            row = await self._database.pool.fetchrow(_FIND, signature_id)
        if row is None:
            return None
        # asyncpg's own UUID class is a subclass that the standard library's hash functions take as well.
        return Outcome(**dict(row))

    async def find_target(self, signature_id: UUID, event_id: UUID) -> CommandTarget | None:
        """What the command `event_id` about a signature meets, or None when the signature is not decided.

        Raises:
            Exception: as `find`.
        """
        async with asyncio.timeout(_ANSWER_SECONDS):
            row = await self._database.pool.fetchrow(_FIND_TARGET, signature_id, event_id)
        return None if row is None else CommandTarget(**dict(row))
