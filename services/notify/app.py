"""Wiring of notify."""

from __future__ import annotations

from functools import partial

from services.notify.metrics import NotifyMetrics
from services.notify.milestones.consumer import new_consumer
from services.notify.milestones.handlers import MilestoneHandler
from services.notify.milestones.store import MilestoneStore
from services.notify.outbox.parts import new_outbox
from services.notify.settings import Settings
from services.notify.upkeep import Upkeep
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.producing.producer import EventProducer
from shared.postgres import Database
from shared.runtime.parts import Part
from shared.service import Base, Service


def build(settings: Settings) -> Service:
    """Put a notify process together. Nothing connects before the service runs."""
    base = Base("notify", settings)
    metrics = NotifyMetrics(base.registry)
    database = Database(settings.postgres_url.get_secret_value(), application=base.name)
    producer = EventProducer(settings)
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, base.registry, on_bug=base.crash.fail)
    outbox = new_outbox(settings, database=database, catalogue=catalogue, feed=feed, metrics=metrics)
    sender, store = outbox.sender, outbox.store
    milestones = MilestoneStore(database)
    handler = MilestoneHandler(
        catalogue=catalogue, feed=feed, store=milestones, metrics=metrics, coalesce_seconds=settings.coalesce_seconds
    )
    consumer = new_consumer(base, handler, producer)
    upkeep = Upkeep(handler=handler, corrections=outbox.corrections, store=store, metrics=metrics)
    feed.subscribe(base.broker)
    consumer.subscribe(base.broker)

    return Service(
        base,
        port=settings.port,
        parts=[
            Part(run=database.open, close=database.close),
            Part(run=producer.start_when_reachable, close=producer.stop),
            Part(stop=consumer.drain),
            Part(run=sender.run, stop=sender.stop, finish=partial(sender.ended, settings.drain_seconds)),
            Part(run=upkeep.run),
        ],
        checks={
            "kafka": consumer.check_brokers,
            "catalogue": feed.check,
            "postgres": database.check,
            "smtp": outbox.relay.check,
            "consumer": consumer.check,
        },
    )
