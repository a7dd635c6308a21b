"""Corrected targets: deliveries that failed because of a petition's earlier state become due by its present one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import structlog

from services.notify.outbox.failures import Correction, Failed, correction_of
from services.notify.outbox.store import DeliveryStore
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.runtime.failpoints import failpoint

log = structlog.get_logger(__name__)


class Corrections:
    """Compares failed deliveries with the catalogue, and makes those due whose targets were corrected.

    It compares states and does not rely on events, so it also finds a correction that came while no notify was running, or
    while the mail was being sent to the old address.

    Args:
        catalogue: The petitions with their targets.
        feed: Fills the catalogue.
        store: The deliveries.
    """

    def __init__(self, *, catalogue: Catalogue, feed: CatalogueFeed, store: DeliveryStore) -> None:
        self._catalogue, self._feed, self._store = catalogue, feed, store

    async def requeue(self) -> None:
        """Make deliveries due again whose targets were corrected since they failed.

        Raises:
            CatalogueBehind: the catalogue could not be read up to now.
        """
        if await self._feed.check() is not None:
            return
        failed = await self._store.correctable()
        if not self._found(failed):
            return
        # After the rows were read: so the catalogue is at least as new as the one with which they failed, and an earlier
        # address is never taken for the correction.
        await self._feed.catch_up()
        for petition_id, corrections in self._found(failed).items():
            done = await self._store.correct(petition_id, corrections)
            if done.again:
                await failpoint("notify.requeued")
            for left in done.left:
                log.info("mail_not_requeued", delivery_id=str(left.delivery_id), reason=left.why)

    def _found(self, failed: Iterable[Failed]) -> dict[str, list[Correction]]:
        found: defaultdict[str, list[Correction]] = defaultdict(list)
        for one in failed:
            petition = self._catalogue.get(one.petition_id)
            correction = None if petition is None else correction_of(one, petition)
            if correction is not None:
                found[one.petition_id].append(correction)
        return dict(found)
