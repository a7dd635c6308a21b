"""tally marks a milestone as announced before it publishes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.tally.counting.ledger import Ledger
from services.tally.counting.tally import Reached
from tests.faults.mutants.mutant import Mutant, replace


def _break() -> None:
    def marked_at_once(record: Callable[..., Awaitable[Reached | None]]) -> Any:
        async def record_milestone(self: Ledger, reached: Reached) -> Reached | None:
            recorded = await record(self, reached)
            if recorded is not None:
                await self.mark_announced(recorded)
            return recorded

        return record_milestone

    replace(Ledger, "record_milestone", marked_at_once)


MUTANT = Mutant(
    name="milestone-cleared-first",
    broken="a milestone is marked as announced before it is published",
    service="tally",
    break_it=_break,
)
