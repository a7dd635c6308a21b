"""Wiring of tally: the counting half and the reading half."""

from __future__ import annotations

from services.tally.counting.parts import new_counting
from services.tally.reading.parts import Reading
from services.tally.settings import Settings
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.group_lag import GroupLag
from shared.kafka.registration import document_writes
from shared.runtime.parts import Part
from shared.service import Base, Service


def build(settings: Settings) -> Service:
    """Put a tally process together. Nothing connects before the service runs."""
    base = Base("tally", settings)
    catalogue = Catalogue()
    reading = Reading(base, catalogue)
    counting = new_counting(base, catalogue, announced=reading.hub.announced)

    async def on_change(petition: PetitionChanged) -> None:
        await counting.on_petition_change(petition)
        reading.hub.petition_changed(petition)

    feed = CatalogueFeed(catalogue, base.registry, on_bug=base.crash.fail, on_change=on_change)
    live = reading.feed(on_overtaken=counting.on_overtaken, on_announced=counting.on_announced)
    feed.subscribe(base.broker)
    live.subscribe(base.broker)
    counting.consumer.subscribe(base.broker)
    document_writes(base.broker, TALLIES_UPDATED.name, MILESTONES_REACHED.name)

    return Service(
        base,
        port=settings.port,
        parts=[
            *counting.parts,
            Part(stop=reading.hub.close),
            Part(run=GroupLag(settings, base.registry).run),
        ],
        checks={"catalogue": feed.check},
        # Pages, API and streams are served without any of these. All instances share them, so a load balancer would remove
        # every instance at once, and the pages with them.
        side_checks=counting.checks,
        routes=reading.routes(counting.store),
    )
