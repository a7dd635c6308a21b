"""tally does not notice that it talks to another Redis than before."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from services.tally.counting import healing
from services.tally.counting.announcing.taking_back import TakingBack
from tests.faults.mutants.mutant import Mutant, replace


def _break() -> None:
    async def always_the_same(_: Redis) -> str:
        return "the-same/always"

    def blind(_: Any) -> Any:
        return always_the_same

    def deaf(_: Any) -> Any:
        return lambda *_: None

    replace(healing, "identity", blind)
    # A snapshot that Redis does not have would be found too, if tally read it back before it knew it as its own.
    replace(TakingBack, "heard", deaf)


MUTANT = Mutant(
    name="redis-unnoticed",
    broken="another Redis goes unnoticed",
    service="tally",
    break_it=_break,
)
