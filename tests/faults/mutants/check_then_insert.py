"""verify checks whether a signer has signed, and inserts the signature if not: no index prevents two checks at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

from services.verify.store import signing
from shared.runtime.failpoints import failpoint
from tests.faults.mutants.mutant import Mutant, replace
from tests.faults.mutants.points import SIGNERS_CHECKED

_SCHEMA = "DROP INDEX signatures_one_per_signer"

_STANDING: Final = ("pending", "verified", "invalidated")

_CHECK = "SELECT signer_key FROM signatures WHERE signer_key = ANY($1::uuid[]) AND state = ANY($2::text[])"

Insert = Callable[[Any, str, list[tuple[Any, ...]]], Awaitable[set[UUID]]]


def _points() -> None:
    def stopping(insert: Insert) -> Insert:
        async def _insert_signatures(connection: Any, statement: str, rows: list[tuple[Any, ...]]) -> set[UUID]:
            await failpoint(SIGNERS_CHECKED)
            return await insert(connection, statement, rows)

        return _insert_signatures

    replace(signing, "_insert_signatures", stopping)


def _break() -> None:
    def checking(insert: Insert) -> Insert:
        async def _insert_signatures(connection: Any, statement: str, rows: list[tuple[Any, ...]]) -> set[UUID]:
            signers = [signer for _, signer, *_ in rows]
            taken = {row["signer_key"] for row in await connection.fetch(_CHECK, signers, list(_STANDING))}
            free = []
            for row in rows:
                _, signer, _, state, *_ = row
                if state not in _STANDING or signer not in taken:
                    free.append(row)
                    taken.update({signer} if state in _STANDING else ())
            return await insert(connection, statement, free)

        return _insert_signatures

    replace(signing, "_insert_signatures", checking)


MUTANT = Mutant(
    name="check-then-insert",
    broken="verify de-duplicates by looking first and inserting then",
    service="verify",
    break_it=_break,
    points=_points,
    schema=_SCHEMA,
    spoils_its_world=True,
)
