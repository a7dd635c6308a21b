"""A consumer retries a batch with a record that can never be applied for ever, without splitting it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from shared.kafka.consuming.isolation import Isolation, Item, needs_splitting
from tests.faults.mutants.mutant import Mutant, replace


class _TryAgain(ConnectionError):
    """Errors about the data are treated as transient."""


def _break() -> None:
    def holding(_: Callable[..., Awaitable[int]]) -> Any:
        async def apply(self: Isolation[Any], batch: Sequence[Item[Any]], epoch: int) -> int:
            async def step() -> None:
                try:
                    await self._process([value for _, value in batch])
                except Exception as error:
                    if needs_splitting(error):
                        raise _TryAgain from error
                    raise

            await self._holding.until_done(step, "batch", epoch)
            return len(batch)

        return apply

    replace(Isolation, "apply", holding)


MUTANT = Mutant(
    name="not-split",
    broken="verify does not split a batch that cannot be applied",
    service="verify",
    break_it=_break,
)
