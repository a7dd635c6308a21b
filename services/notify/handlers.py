"""Milestones in: a batch through decode → known? → rows. The consumer commits when `process` returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord

from services.notify.deliveries import Delivery, deliveries_for
from services.notify.metrics import NotifyMetrics
from services.notify.store import DeliveryStore
from shared.bounds import FACT_AHEAD, MOST_BIGINT, fit
from shared.catalogue import Catalogue
from shared.events import MilestoneReached
from shared.failpoints import failpoint
from shared.kafka.catalogue_feed import CatalogueFeed
from shared.kafka.decode import by_type, read_event
from shared.kafka.errors import InvalidRecord

log = structlog.get_logger(__name__)

_EVENTS: Final = by_type(MilestoneReached)


def decode(record: ConsumerRecord[Any, Any]) -> MilestoneReached:
    """Read one record of ``milestones.reached``.

    Raises:
        InvalidRecord: it is no milestone that this version knows. The message never holds the content.
    """
    _, milestone = read_event(record, _EVENTS)
    # PostgreSQL would refuse the whole batch for one of these.
    if max(milestone.threshold, milestone.count, milestone.revision) > MOST_BIGINT:
        raise InvalidRecord("out_of_range", "threshold, count and revision must be below 2**63")
    if not fit(record, FACT_AHEAD, milestone.reached_at):
        raise InvalidRecord("out_of_range", "reached_at is of the year 2000 or later, and not ahead")
    return milestone


class MilestoneHandler:
    """Turns milestones into deliveries.

    A milestone of a petition that is not known here is no bad record: the petition's own record may be late, deleted or
    unreadable. It is written to a table of its own, so that neither it is lost nor the milestones behind it held up, and
    becomes deliveries as soon as the petition is known (`release`).
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        feed: CatalogueFeed,
        store: DeliveryStore,
        metrics: NotifyMetrics,
        coalesce_seconds: float,
    ) -> None:
        self._catalogue, self._feed = catalogue, feed
        self._store, self._metrics = store, metrics
        self._due_in = timedelta(seconds=coalesce_seconds)

    async def process(self, batch: Sequence[MilestoneReached]) -> None:
        """Write the deliveries of a batch; durable when this returns. Again and again is as good as once.

        Raises:
            CatalogueBehind: the catalogue is not read up to now. Without that, a petition could be missing, or be one
                whose targets have changed since.
        """
        await self._feed.catch_up()
        deliveries: list[Delivery] = []
        waiting: list[MilestoneReached] = []
        for milestone in batch:
            if self._catalogue.get(milestone.petition_id) is None:
                waiting.append(milestone)
            else:
                deliveries.extend(self._deliveries_of(milestone))
        self._metrics.created.inc(await self._store.add(deliveries, waiting, due_in=self._due_in))
        await failpoint("notify.stored")
        for milestone in waiting:
            log.warning("milestone_without_petition", petition_id=milestone.petition_id, threshold=milestone.threshold)

    async def release(self) -> None:
        """Turn waiting milestones into deliveries where the petition has become known."""
        if await self._feed.check() is not None:
            return
        known = [petition for petition in await self._store.petitions_waited_for() if self._catalogue.get(petition)]
        if known:
            created = await self._store.release(known, self._deliveries_of, due_in=self._due_in)
            self._metrics.created.inc(created)
            log.info("waiting_milestones_released", petitions=known, deliveries=created)

    def _deliveries_of(self, milestone: MilestoneReached) -> list[Delivery]:
        petition = self._catalogue.get(milestone.petition_id)
        assert petition is not None
        return deliveries_for(milestone, petition)
