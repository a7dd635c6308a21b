"""What is done every few seconds beside receiving and sending: release waiting milestones, measure the backlog."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

import structlog

from services.notify.handlers import MilestoneHandler
from services.notify.metrics import NotifyMetrics
from services.notify.store import DeliveryStore
from shared.kafka.errors import is_transient

log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 2.0
"""Well within Prometheus' usual scrape interval; a few small queries."""

_STRAYS_EVERY: Final = 150
"""Every so many times, strays are looked for: that reads all that was ever folded."""


class Upkeep:
    """Runs until it is cancelled."""

    def __init__(self, *, handler: MilestoneHandler, store: DeliveryStore, metrics: NotifyMetrics) -> None:
        self._handler, self._store, self._metrics = handler, store, metrics

    async def run(self) -> None:
        """Look after things, again and again; what is away now is looked at the next time.

        Raises:
            Exception: a bug.
        """
        for turn in itertools.count():
            try:
                await self._handler.release()
                await self._measure()
                if turn % _STRAYS_EVERY == 0:
                    await self._withhold_strays()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.debug("upkeep_put_off", cause=type(error).__name__)
            await asyncio.sleep(_EVERY_SECONDS)

    async def _measure(self) -> None:
        unknown = self._handler.unknown(await self._store.open_petitions())
        backlog = await self._store.backlog(unknown, self._handler.unpublished())
        for state, number in (
            ("collecting", backlog.collecting),
            ("waiting", backlog.waiting),
            ("sending", backlog.sending),
        ):
            self._metrics.pending.labels(state=state).set(number)
        self._metrics.oldest_due.set(backlog.oldest_due.total_seconds())
        self._metrics.waiting.set(backlog.milestones_waiting)

    async def _withhold_strays(self) -> None:
        for stray in await self._store.withhold_strays():
            self._metrics.finished.labels(outcome="withheld").inc()
            log.error("mail_withheld", **stray.named())
