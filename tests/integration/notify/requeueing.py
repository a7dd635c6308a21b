"""Helpers for the tests of requeued mails."""

from __future__ import annotations

from typing import cast

from services.notify.outbox import requeue
from services.notify.outbox.corrections import Corrections
from services.notify.outbox.requeue import Retried
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.kafka.broadcasting.catalogue_feed import CatalogueBehind, CatalogueFeed
from tests.integration.notify.notify_desk import Desk

UNKNOWN = "550 5.1.1 no such office"
OLD, NEW = "office0@harbour.example", "harbour-office@town.example"
FERRY = "night-ferry"


class Feed:
    """A catalogue that has been read to its end, with records that arrive while it catches up."""

    def __init__(self, catalogue: Catalogue, *news: PetitionChanged, behind: bool = False) -> None:
        self.catalogue, self.news, self.behind = catalogue, list(news), behind
        self.caught_up = 0

    async def catch_up(self) -> None:
        """Reads what is on the topic."""
        self.caught_up += 1
        if self.behind:
            raise CatalogueBehind
        for one in self.news:
            self.catalogue.apply(one)

    async def check(self) -> str | None:
        """It is complete."""
        return None


async def correct(desk: Desk, feed: Feed | None = None) -> None:
    """Search once for corrections."""
    found = cast("CatalogueFeed", feed or Feed(desk.catalogue))
    await Corrections(catalogue=desk.catalogue, feed=found, store=desk.store).requeue()


async def fail(desk: Desk, *thresholds: int, answer: str = UNKNOWN, targets: int = 1) -> None:
    """One mail after the other fails with this answer at RCPT."""
    for threshold in thresholds:
        await desk.reached(threshold, targets=targets)
        desk.smtp.answer("RCPT", *[answer] * targets)
        async with desk.sending():
            await desk.finished()


async def send(desk: Desk) -> list[tuple[str, str]]:
    """Send what is due; recipient and milestones of all mails that the server has."""
    async with desk.sending():
        await desk.finished()
    return [(mail.recipient, mail.milestones) for mail in desk.smtp.taken]


async def retry(desk: Desk) -> Retried:
    """An operator's command about the petition."""
    async with desk.eyes.transaction():
        return await requeue.retry(desk.eyes, FERRY, by="Kim, helpdesk")
