"""notify accepts a record of ``petitions.changed`` under any key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import ConsumerRecord

from shared.kafka.broadcasting import catalogue_feed
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from tests.faults.mutants.mutant import Mutant, replace


def _break() -> None:
    def believing(apply: Callable[[CatalogueFeed, ConsumerRecord[Any, Any]], Awaitable[None]]) -> Any:
        async def _apply(self: CatalogueFeed, record: ConsumerRecord[Any, Any]) -> None:
            try:
                await apply(self, record)
            except catalogue_feed.KeyMismatch:
                petition = catalogue_feed._read(record)
                await self._take_over(petition.petition_id, petition)

        return _apply

    replace(CatalogueFeed, "_apply", believing)


MUTANT = Mutant(
    name="key-unchecked",
    broken="notify believes a petition under another key",
    service="notify",
    break_it=_break,
)
