"""Wiring of ingest."""

from __future__ import annotations

from functools import partial

from services.ingest import routes
from services.ingest.admin.events import AdminEvents
from services.ingest.admin.upkeep import AdminUpkeep
from services.ingest.metrics import IngestMetrics
from services.ingest.settings import Settings
from services.ingest.signing.parts import new_accepting
from services.ingest.web.limits import InFlight
from shared.contract.catalogue import Catalogue
from shared.contract.topics import PETITIONS_CHANGED, SIGNATURES_SUBMITTED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.group_lag import GroupLag
from shared.kafka.registration import document_writes
from shared.postgres import Database
from shared.runtime.parts import Part
from shared.service import Base, Service


def build(settings: Settings) -> Service:
    """Put an ingest process together. Nothing connects before the service runs."""
    base = Base("ingest", settings)
    database = Database(settings.postgres_url.get_secret_value(), application=base.name)
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, base.registry, on_bug=base.crash.fail)
    in_flight = InFlight(settings.max_in_flight)
    metrics = IngestMetrics(base.registry, in_flight=lambda: in_flight.count)
    accepting = new_accepting(base, catalogue=catalogue, feed=feed, metrics=metrics)
    clock, producer, intake = accepting.clock, accepting.producer, accepting.intake
    events = AdminEvents(database, metrics)
    feed.subscribe(base.broker)
    document_writes(base.broker, SIGNATURES_SUBMITTED.name, PETITIONS_CHANGED.name)

    return Service(
        base,
        port=settings.port,
        parts=[
            Part(run=database.open, close=database.close),
            Part(run=producer.start_when_reachable, close=producer.stop),
            Part(run=feed.look_until_complete),
            Part(run=clock.watch),
            Part(run=partial(clock.ask, database)),
            Part(run=AdminUpkeep(intake=intake, feed=feed, events=events).run),
            Part(run=GroupLag(settings, base.registry).run),
        ],
        checks={"kafka": producer.check, "catalogue": feed.check, "clock": clock.check},
        # Signatures are accepted without PostgreSQL; status and commands, and changes of petitions, need it.
        side_checks={"postgres": database.check},
        routes=routes.build(
            settings, database, catalogue, feed, intake, events=events, in_flight=in_flight, metrics=metrics
        ),
    )
