"""A batch of milestones through notify: decode → decided? → known? → rows. The consumer commits when `process` returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord

from services.notify.deliveries import Delivery, deliveries_for
from services.notify.metrics import NotifyMetrics
from services.notify.milestones.store import Decided, MilestoneStore
from services.notify.outbox.writing import Written
from shared.contract.bounds import FACT_AHEAD, MOST_BIGINT, fit
from shared.contract.catalogue import Catalogue
from shared.contract.events import MilestoneReached
from shared.contract.identity import milestone_id
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.records.decode import by_type, read_event
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import InvalidRecord, SetAside

log = structlog.get_logger(__name__)

NOT_DECIDED: Final = "not_decided"
"""Reason of a dead letter: tally has not recorded this milestone, or has recorded it with other numbers."""

_EVENTS: Final = by_type(MilestoneReached)


def decode(record: ConsumerRecord[Any, Any]) -> MilestoneReached:
    """Read one record of ``milestones.reached``.

    Raises:
        InvalidRecord: it is not a valid milestone of a known type and version. The message never holds the content.
    """
    event_id, milestone = read_event(record, _EVENTS)
    # PostgreSQL would refuse the whole batch for one larger number.
    if max(milestone.threshold, milestone.count, milestone.revision) > MOST_BIGINT:
        raise InvalidRecord("out_of_range", "threshold, count and revision must be below 2**63")
    if not fit(record, FACT_AHEAD, milestone.reached_at):
        raise InvalidRecord("out_of_range", "reached_at is of the year 2000 or later, and not ahead")
    if record.key != milestone.petition_id.encode():
        raise InvalidRecord("key", "the record key must be the petition id")
    if event_id != str(milestone_id(milestone.petition_id, milestone.threshold)):
        raise InvalidRecord("event_id", "header ce_id must be the id derived from petition and threshold")
    return milestone


class MilestoneHandler:
    """Turns milestones into deliveries, if tally decided them; one that tally's table does not have is set aside.

    A milestone of a petition that is unknown here is not a bad record: the petition's own record may be late, deleted or
    unreadable. It is written to a separate table, so that it is neither lost nor holds up the milestones behind it, and
    becomes deliveries once the petition is known (`release`). The same applies to a petition that is not published.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        feed: CatalogueFeed,
        store: MilestoneStore,
        metrics: NotifyMetrics,
        coalesce_seconds: float,
    ) -> None:
        self._catalogue, self._feed = catalogue, feed
        self._store, self._metrics = store, metrics
        self._due_in = timedelta(seconds=coalesce_seconds)

    async def process(self, batch: Sequence[MilestoneReached]) -> None:
        """Write the deliveries of a batch, durably. Idempotent.

        Raises:
            SetAside: tally has not decided these milestones. Nothing is written.
            CatalogueBehind: the catalogue could not be read up to now, so a petition could be missing, or have other
                targets by now.
        """
        refused = _refused(batch, await self._store.decided(batch))
        if refused:
            raise SetAside(refused)
        await self._feed.catch_up()
        deliveries: list[Delivery] = []
        waiting: list[MilestoneReached] = []
        for milestone in batch:
            if self._catalogue.published(milestone.petition_id) is None:
                waiting.append(milestone)
            else:
                deliveries.extend(self._deliveries_of(milestone))
        self._count(await self._store.add(deliveries, waiting, due_in=self._due_in))
        await failpoint("notify.stored")
        for milestone in waiting:
            log.warning(
                "milestone_without_petition",
                petition_id=milestone.petition_id,
                threshold=milestone.threshold,
                unpublished=self._catalogue.get(milestone.petition_id) is not None,
            )

    async def release(self) -> None:
        """Turn waiting milestones into deliveries where the petition has become known.

        Those that tally has not decided are set aside first: they were written into the table by hand.
        """
        for petition_id, threshold in await self._store.refuse_undecided():
            self._metrics.refused.inc()
            log.error("waiting_milestone_refused", petition_id=petition_id, threshold=threshold)
        if await self._feed.check() is not None:
            return
        known = [
            petition for petition in await self._store.petitions_waited_for() if self._catalogue.published(petition)
        ]
        if known:
            written = await self._store.release(known, self._deliveries_of, due_in=self._due_in)
            self._count(written)
            log.info("waiting_milestones_released", petitions=known, deliveries=len(written.created))

    def unknown(self, petition_ids: Iterable[str]) -> list[str]:
        """Those of these petitions that are unknown here, or not published."""
        return [petition_id for petition_id in petition_ids if self._catalogue.published(petition_id) is None]

    def unpublished(self) -> list[str]:
        """The petitions that are known and not published."""
        return [petition.petition_id for petition in self._catalogue if not petition.published]

    def _count(self, written: Written) -> None:
        self._metrics.created.inc(len(written.created))
        self._metrics.finished.labels(outcome="forged").inc(written.replaced)

    def _deliveries_of(self, milestone: MilestoneReached) -> list[Delivery]:
        petition = self._catalogue.get(milestone.petition_id)
        assert petition is not None
        return deliveries_for(milestone, petition)


def _refused(batch: Sequence[MilestoneReached], decided: Mapping[tuple[str, int], Decided]) -> dict[int, InvalidRecord]:
    """By index in the batch, why a milestone is not one that tally decided."""
    refused = {}
    for index, milestone in enumerate(batch):
        recorded = decided.get((milestone.petition_id, milestone.threshold))
        if recorded is None:
            refused[index] = InvalidRecord(NOT_DECIDED, "tally has recorded no such milestone")
        elif recorded != Decided(milestone.count, milestone.revision, milestone.reached_at):
            refused[index] = InvalidRecord(NOT_DECIDED, "tally has recorded another count, revision or time")
    return refused
