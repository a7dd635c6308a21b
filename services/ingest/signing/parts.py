"""The parts of accepting: the clock, the producer and the intake."""

from __future__ import annotations

from dataclasses import dataclass

from services.ingest.metrics import IngestMetrics
from services.ingest.settings import Settings
from services.ingest.signing.clock import Clock
from services.ingest.signing.intake import Intake
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.producing.producer import EventProducer
from shared.service import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepting:
    """The interface of this room to app.py and other rooms."""

    clock: Clock
    producer: EventProducer
    intake: Intake


def new_accepting(
    base: Base[Settings], *, catalogue: Catalogue, feed: CatalogueFeed, metrics: IngestMetrics
) -> Accepting:
    """Put the parts together.

    Args:
        base: Settings, and the crash switch for a producer's errors that are not transient.
        catalogue: The petitions.
        feed: Fills the catalogue; nothing is accepted before it is complete.
        metrics: The metrics of ingest.
    """
    settings = base.settings
    clock = Clock(metrics, tolerance=settings.clock_tolerance_seconds)
    producer = EventProducer(settings, on_arrival=clock.appended)
    intake = Intake(
        catalogue=catalogue,
        catalogue_complete=lambda: feed.complete,
        producer=producer,
        clock=clock,
        pepper=settings.pepper,
        on_bug=base.crash.fail,
    )
    return Accepting(clock=clock, producer=producer, intake=intake)
