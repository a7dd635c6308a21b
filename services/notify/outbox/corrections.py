"""Targets that were corrected: deliveries that failed for what a petition said before become due by what it says now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import structlog

from services.notify.deliveries import address_of, one_line
from services.notify.mail.refusals import Cause
from services.notify.outbox.requeue import Because, Correction, Failed
from services.notify.outbox.store import DeliveryStore
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, Target
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.runtime.failpoints import failpoint

log = structlog.get_logger(__name__)


def correction_of(failed: Failed, petition: PetitionChanged) -> Correction | None:
    """What the petition, as it is now, makes of deliveries that failed; None if it leaves them as they are.

    A target is known by its id. If the petition does not address that id any more, the target may have been taken out and
    added under another: then it is the one of the same name, or of the same address if nothing was wrong with that.
    """
    target = next((one for one in petition.targets if one.target_id == failed.target_id), None)
    if target is not None:
        if failed.cause is Cause.TARGET:
            return Correction(failed, target, Because.TARGET)
        return Correction(failed, target, Because.ADDRESS) if address_of(target) != failed.email else None
    names = {_folded(name) for name in failed.target_names}
    others = [one for one in petition.targets if _folded(one.name) in names or _same_address(one, failed)]
    if len(others) != 1 or (failed.cause is Cause.ADDRESS and address_of(others[0]) == failed.email):
        return None
    return Correction(failed, others[0], Because.TARGET)


def _folded(name: str) -> str:
    return one_line(name).casefold()


def _same_address(target: Target, failed: Failed) -> bool:
    return failed.cause is Cause.TARGET and address_of(target) == failed.email


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
