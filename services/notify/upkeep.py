"""Periodic work of notify: releasing waiting milestones, requeueing deliveries whose targets were corrected, withholding
strays, and measuring the backlog."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

import structlog

from services.notify.mail.refusals import Cause
from services.notify.metrics import NotifyMetrics
from services.notify.milestones.handlers import MilestoneHandler
from services.notify.outbox.corrections import Corrections
from services.notify.outbox.store import DeliveryStore
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 2.0
"""Well within Prometheus' usual scrape interval; a few small queries."""

_CORRECTIONS_EVERY: Final = 2
"""Rounds between two looks for corrected targets, which read all failed deliveries that a correction could make due."""

_STRAYS_EVERY: Final = 150
"""Rounds between two looks for strays, which read all deliveries that were ever folded."""

_SHOWN: Final = (Cause.ADDRESS, Cause.SERVER, Cause.TARGET, Cause.WITHHELD)


class Upkeep:
    """The periodic work of notify."""

    def __init__(
        self, *, handler: MilestoneHandler, corrections: Corrections, store: DeliveryStore, metrics: NotifyMetrics
    ) -> None:
        self._handler, self._corrections = handler, corrections
        self._store, self._metrics = store, metrics

    async def run(self) -> None:
        """Do the periodic work, for ever; a transient error only delays it.

        Raises:
            Exception: a bug.
        """
        for number in itertools.count():
            try:
                await self.turn(number)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.debug("upkeep_put_off", cause=type(error).__name__)
            await asyncio.sleep(_EVERY_SECONDS)

    async def turn(self, number: int) -> None:
        """Do one round; its number, from 0, decides which tasks are due.

        Raises:
            ConnectionError: something is away; or another transient error.
        """
        await self._handler.release()
        if number % _CORRECTIONS_EVERY == 0:
            await self._corrections.requeue()
            await self._measure_failed()
        await self._note_requeued()
        await self._measure()
        if number % _STRAYS_EVERY == 0:
            await self._withhold_strays()

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

    async def _measure_failed(self) -> None:
        numbers = await self._store.failed_by_cause()
        for cause in _SHOWN:
            self._metrics.failed.labels(cause=cause.value).set(numbers.get(cause, 0))

    async def _note_requeued(self) -> None:
        for requeued in await self._store.note_requeued():
            self._metrics.requeued.labels(cause=requeued.because.value).inc(requeued.deliveries)
            log.info(
                "deliveries_requeued",
                petition_id=requeued.petition_id,
                target_id=requeued.target_id,
                deliveries=requeued.deliveries,
                because=requeued.because.value,
                actor=requeued.by,
            )

    async def _withhold_strays(self) -> None:
        for stray in await self._store.withhold_strays():
            self._metrics.finished.labels(outcome="withheld").inc()
            log.error("mail_withheld", **stray.named())
