"""Wiring of verify."""

from __future__ import annotations

from services.verify.consumer import new_consumer
from services.verify.handlers import VerifyHandler
from services.verify.metrics import VerifyMetrics
from services.verify.settings import Settings
from services.verify.store import VerifyStore
from shared.contract.catalogue import Catalogue
from shared.contract.topics import SIGNATURES_REJECTED, SIGNATURES_VERIFIED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.producing.producer import EventProducer
from shared.kafka.registration import document_writes
from shared.postgres import Database
from shared.runtime.parts import Part
from shared.service import Base, Service


def build(settings: Settings) -> Service:
    """Put a verify process together. Nothing connects before the service runs."""
    base = Base("verify", settings)
    database = Database(settings.postgres_url.get_secret_value(), application=base.name)
    producer = EventProducer(settings)
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, base.registry, on_bug=base.crash.fail)
    handler = VerifyHandler(
        catalogue=catalogue,
        feed=feed,
        store=VerifyStore(database),
        producer=producer,
        metrics=VerifyMetrics(base.registry),
        pepper=settings.pepper,
    )
    consumer = new_consumer(base, handler, producer)
    feed.subscribe(base.broker)
    consumer.subscribe(base.broker)
    document_writes(base.broker, SIGNATURES_VERIFIED.name, SIGNATURES_REJECTED.name)

    return Service(
        base,
        port=settings.port,
        parts=[
            Part(run=database.open, close=database.close),
            Part(run=producer.start_when_reachable, close=producer.stop),
            Part(stop=consumer.drain),
        ],
        checks={
            "kafka": consumer.check_brokers,
            "catalogue": feed.check,
            "postgres": database.check,
            "consumer": consumer.check,
        },
    )
