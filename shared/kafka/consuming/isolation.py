"""Applies a batch except for the records that cannot be applied.

`process` names these records (`SetAside`), or it fails with an error about the data (`is_about_the_data`) or with more
collisions than a second writer explains. In the latter cases the batch is halved repeatedly, in order, until the record is
found that fails alone. That record is retried a few times and then set aside, and the rest is applied. Effects are
idempotent, so a part may be repeated; each record is applied or set aside before those after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog
from aiokafka import ConsumerRecord

from shared.kafka.consuming.dead_letters import DeadLetter
from shared.kafka.consuming.holding import BACKOFF_FIRST, BACKOFF_MOST, MOST_COLLISIONS, Holding
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.runtime.backoff import Backoff
from shared.runtime.failures import (
    CANNOT_BE_APPLIED,
    Collision,
    InvalidRecord,
    SetAside,
    is_about_the_data,
    without_content,
)

T = TypeVar("T")

log = structlog.get_logger(__name__)

TRIES_ALONE: Final = 4
"""How often a record that fails alone is tried before it is set aside: what it conflicts with may come from another writer
and be gone a moment later."""


Item: TypeAlias = tuple[ConsumerRecord[Any, Any], T]
"""A record and its decoded value. A plain tuple, because one is made for every record."""


class _Part(NamedTuple, Generic[T]):
    """Records of a batch that are applied together."""

    items: Sequence[Item[T]]
    tries: int = 0
    """How often a single record has failed."""


class Isolation(Generic[T]):
    """See the module's contract.

    Args:
        topic: The topic's name, for the log.
        process: Processes a batch.
        set_aside: Writes dead letters and returns when they are durable. Its last argument, `found_alone`, says that the
            record was found by splitting, not named by `process`.
        holding: Retries after transient errors.
        metrics: The consumer's metrics.
    """

    def __init__(
        self,
        topic: str,
        *,
        process: Callable[[Sequence[T]], Awaitable[None]],
        set_aside: Callable[[Sequence[DeadLetter], int, bool], Awaitable[None]],
        holding: Holding,
        metrics: ConsumerMetrics,
    ) -> None:
        self._topic, self._process, self._set_aside = topic, process, set_aside
        self._holding, self._metrics = holding, metrics

    async def apply(self, batch: Sequence[Item[T]], epoch: int) -> int:
        """Apply the records that can be applied and set the others aside. Returns how many were applied.

        Raises:
            BatchAbandoned: the partitions are revoked, or the service stops.
            Exception: a bug. What was applied or set aside before it is not committed and is redelivered.
        """
        applied, waiting = 0, [_Part(batch)]
        try:
            while waiting:
                part = waiting.pop(0)
                try:
                    await self._do(part, epoch, whole=part.items is batch)
                except SetAside as named:
                    rest = await self._without(named, part.items, epoch)
                    waiting[:0] = [_Part(rest)] if rest else []
                except Exception as error:
                    if not needs_splitting(error):
                        raise
                    self._holding.say_around(f"batch held: looking for what cannot be applied, {type(error).__name__}")
                    waiting[:0] = await self._narrowed(part, error, epoch)
                    self._holding.still_ours(epoch)
                else:
                    applied += len(part.items)
        finally:
            self._holding.say_around(None)
        return applied

    async def _do(self, part: _Part[T], epoch: int, *, whole: bool) -> None:
        values = [value for _, value in part.items]
        # A part of several records is split again at once; only the whole batch and a single record are retried.
        most = MOST_COLLISIONS if whole or len(values) == 1 else 1
        await self._holding.until_done(lambda: self._process(values), "batch", epoch, most_collisions=most)

    async def _without(self, named: SetAside, items: Sequence[Item[T]], epoch: int) -> list[Item[T]]:
        """Set the named records aside and return the others."""
        letters = [DeadLetter(record, named.refused[i]) for i, (record, _) in enumerate(items) if i in named.refused]
        if len(letters) != len(named.refused):
            raise IndexError("SetAside names records that are not in the batch") from named
        await self._set_aside(letters, epoch, False)
        return [item for i, item in enumerate(items) if i not in named.refused]

    async def _narrowed(self, part: _Part[T], error: Exception, epoch: int) -> list[_Part[T]]:
        """Return the parts that replace one that failed with `error`."""
        items, tries = part.items, part.tries + 1
        if len(items) > 1:
            self._metrics.splits.inc()
            log.warning("batch_split", topic=self._topic, records=len(items), cause=without_content(error))
            half = len(items) // 2
            return [_Part(items[:half]), _Part(items[half:])]
        if tries < TRIES_ALONE and not isinstance(error, Collision):  # `_do` has retried after collisions
            await self._holding.pause(Backoff(BACKOFF_FIRST, BACKOFF_MOST).after(tries), epoch)
            return [_Part(items, tries)]
        letter = DeadLetter(items[0][0], InvalidRecord(CANNOT_BE_APPLIED, without_content(error)))
        await self._set_aside([letter], epoch, True)
        return []


def needs_splitting(error: Exception) -> bool:
    """Return whether a batch that failed with `error` is split: retrying it unchanged would fail again."""
    return isinstance(error, Collision) or is_about_the_data(error)
