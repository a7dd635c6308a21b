"""tally does not take back snapshots that were never counted: of two snapshots the newer one wins, whoever wrote it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from services.tally.counting.announcing.taking_back import TakingBack
from tests.faults.mutants.mutant import Mutant, replace


def _break() -> None:
    def silent(_: Callable[[TakingBack], Awaitable[None]]) -> Any:
        async def put_right(_self: TakingBack) -> None:
            return

        return put_right

    replace(TakingBack, "put_right", silent)


MUTANT = Mutant(
    name="not-taken-back",
    broken="a count that was announced and never counted has no owner who takes it back",
    service="tally",
    break_it=_break,
    spoils_its_world=True,
)
