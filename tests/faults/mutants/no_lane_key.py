"""The ledger has no primary key on (lane, position): two owners of one lane may take the same positions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.verify.deciding.outcome import LedgerRow
from services.verify.deciding.rules import Change
from services.verify.store import ledger, transaction
from shared.runtime.failpoints import failpoint
from tests.faults.mutants.mutant import Mutant, PatchMisfit, replace
from tests.faults.mutants.points import POSITIONS_READ

# The index stays, or reading a lane's last position would scan the table.
_SCHEMA = """
ALTER TABLE ledger DROP CONSTRAINT ledger_pkey;
CREATE INDEX ledger_lane ON ledger (lane, position);
"""


class _StoppedAfterPositions:
    """A connection with a failpoint after the query for the last positions."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.passed = False

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        rows = await self._connection.fetch(statement, *arguments)
        if statement is ledger.LAST_POSITIONS:
            self.passed = True
            await failpoint(POSITIONS_READ)
        return rows

    async def execute(self, statement: str, *arguments: Any) -> Any:
        return await self._connection.execute(statement, *arguments)


def _points() -> None:
    def stopping(append: Callable[..., Awaitable[list[LedgerRow]]]) -> Any:
        async def append_(connection: Any, changes: list[Change]) -> list[LedgerRow]:
            stopped = _StoppedAfterPositions(connection)
            rows = await append(stopped, changes)
            if rows and not stopped.passed:
                raise PatchMisfit("positions are not read by LAST_POSITIONS any more")
            return rows

        return append_

    replace(transaction, "append", stopping)


MUTANT = Mutant(
    name="no-lane-key",
    broken="the ledger has no primary key on (lane, position)",
    service="verify",
    points=_points,
    schema=_SCHEMA,
    spoils_its_world=True,
)
