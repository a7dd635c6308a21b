"""Targets that were corrected: deliveries that failed for what a petition said before become due by what it says now."""

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
    """Compares what failed with the catalogue, and makes due what was put right.

    It compares states and waits for no event: a correction that came while no notify ran, or while the mail was on its way
    to the old address, is found all the same.

    Args:
        catalogue: Who is addressed, and where.
        feed: Fills it.
        store: The deliveries.
    """

    def __init__(self, *, catalogue: Catalogue, feed: CatalogueFeed, store: DeliveryStore) -> None:
        self._catalogue, self._feed, self._store = catalogue, feed, store

    async def requeue(self) -> None:
        """Make due again what was corrected since it failed.

        Raises:
            CatalogueBehind: the catalogue is not read up to now.
        """
        if await self._feed.check() is not None:
            return
        failed = await self._store.correctable()
        if not self._found(failed):
            return
        # Now that the rows are read: what they failed at was in a catalogue that is not newer than the one compared with, so
        # an address that was corrected already is never taken for the correction.
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
