"""Wiring of verify."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.verify.handlers import VerifyHandler
from services.verify.metrics import VerifyMetrics
from services.verify.settings import Settings
from services.verify.store import VerifyStore
from shared.contract.catalogue import Catalogue
from shared.contract.topics import SIGNATURES_REJECTED, SIGNATURES_VERIFIED, VERIFY_GROUP
from shared.kafka.catalogue_feed import CatalogueFeed
from shared.kafka.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.metrics import ConsumerMetrics
from shared.kafka.producer import EventProducer
from shared.kafka.registration import document_writes
from shared.postgres import Database
from shared.runtime.background import background
from shared.service import Service, new_broker, new_registry


def build(settings: Settings) -> Service:
    """Put a verify process together; nothing connects before it is run."""
    registry = new_registry()
    broker = new_broker(settings, registry, "verify")
    database = Database(settings.postgres_url.get_secret_value(), application="verify")
    producer = EventProducer(settings)
    catalogue = Catalogue()

    def on_bug(bug: BaseException) -> None:
        service.fail(bug)

    feed = CatalogueFeed(catalogue, registry, on_bug=on_bug)
    handler = VerifyHandler(
        catalogue=catalogue,
        feed=feed,
        store=VerifyStore(database),
        producer=producer,
        metrics=VerifyMetrics(registry),
        pepper=settings.pepper,
    )
    consumer = BatchConsumer(
        topic=VERIFY_GROUP.topic,
        group=VERIFY_GROUP.name,
        decode=handler.decode,
        process=handler.process,
        producer=producer,
        metrics=ConsumerMetrics(registry),
        settings=settings,
        on_bug=on_bug,
        limits=ConsumerLimits(max_records=settings.max_records, dlq_ratio_limit=settings.dlq_ratio_limit),
        waits_for=("postgres", "catalogue"),
    )
    feed.subscribe(broker)
    consumer.subscribe(broker)
    document_writes(broker, SIGNATURES_VERIFIED.name, SIGNATURES_REJECTED.name)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with background(on_bug, database.open(), producer.start_when_reachable()):
            yield
        await producer.stop()
        await database.close()

    service = Service(
        name="verify",
        title="Groundswell verify",
        settings=settings,
        port=settings.port,
        broker=broker,
        registry=registry,
        lifespan=lifespan,
        checks={
            "kafka": consumer.check_brokers,
            "catalogue": feed.check,
            "postgres": database.check,
            "consumer": consumer.check,
        },
        on_stop=[consumer.drain],
    )
    return service
