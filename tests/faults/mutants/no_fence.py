"""tally counts every fact, whether or not it was counted before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from services.tally.counting import count, redis_store
from services.tally.counting.facts import ReadFact
from services.tally.counting.step import Fences, Step
from tests.faults.mutants.mutant import Mutant, replace, without

_STANDS_IN_THE_WAY = "if fence ~= move[1] then moved = true end"


def _break() -> None:
    def counting_all(step: Callable[[Sequence[ReadFact], Fences], Step]) -> Any:
        return lambda facts, _: step(facts, dict.fromkeys({fact["lane"] for fact in facts}, 0))

    def moving_always(script: Callable[[str], str]) -> Any:
        return lambda name: without(script(name), _STANDS_IN_THE_WAY) if name == "apply.lua" else script(name)

    replace(count, "step", counting_all)
    replace(redis_store, "_script", moving_always)


MUTANT = Mutant(
    name="no-fence",
    broken="tally has no fence: what comes twice is counted twice",
    service="tally",
    break_it=_break,
    spoils_its_world=True,  # of two snapshots the one with the higher revision wins, and the mutant's is too high
)
