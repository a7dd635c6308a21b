"""Wiring of notify."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.notify.mail.letter import MailWriter
from services.notify.mail.smtp import SmtpRelay
from services.notify.mail.smtp_server import SmtpServer
from services.notify.metrics import NotifyMetrics
from services.notify.milestones.handlers import NOT_DECIDED, MilestoneHandler, decode
from services.notify.milestones.store import MilestoneStore
from services.notify.outbox.corrections import Corrections
from services.notify.outbox.sender import Sender
from services.notify.outbox.store import DeliveryStore
from services.notify.settings import Settings
from services.notify.upkeep import Upkeep
from shared.contract.catalogue import Catalogue
from shared.contract.topics import NOTIFY_GROUP
from shared.kafka.catalogue_feed import CatalogueFeed
from shared.kafka.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.metrics import ConsumerMetrics
from shared.kafka.producer import EventProducer
from shared.postgres import Database
from shared.runtime.background import background
from shared.service import Service, new_broker, new_registry

_MAX_RECORDS = 200
"""Milestones of a batch. Each is one row per target, and a petition may have 50: 10,000 rows at most in a transaction."""


def build(settings: Settings) -> Service:
    """Put a notify process together; nothing connects before it is run."""

    def on_bug(bug: BaseException) -> None:
        service.fail(bug)  # made at the end, of what is made here

    registry = new_registry()
    metrics = NotifyMetrics(registry)
    broker = new_broker(settings, registry, "notify")
    database = Database(settings.postgres_url.get_secret_value(), application="notify")
    store, milestones = DeliveryStore(database), MilestoneStore(database)
    producer = EventProducer(settings)
    catalogue = Catalogue()
    feed = CatalogueFeed(catalogue, registry, on_bug=on_bug)
    relay = SmtpRelay(
        SmtpServer.parse(settings.smtp_url.get_secret_value()),
        timeout_seconds=settings.smtp_timeout_seconds,
        authorities=settings.smtp_ssl_ca,
    )
    handler = MilestoneHandler(
        catalogue=catalogue, feed=feed, store=milestones, metrics=metrics, coalesce_seconds=settings.coalesce_seconds
    )
    sender = Sender(
        store=store,
        relay=relay,
        writer=MailWriter(mail_from=settings.mail_from, pages_url=settings.public_pages_url),
        catalogue=catalogue,
        catch_up=feed.catch_up,
        settings=settings,
        metrics=metrics,
    )
    corrections = Corrections(catalogue=catalogue, feed=feed, store=store)
    upkeep = Upkeep(handler=handler, corrections=corrections, store=store, metrics=metrics)
    consumer_metrics = ConsumerMetrics(registry)
    consumer_metrics.dead_letters.labels(
        reason=NOT_DECIDED
    )  # there from the start: a rise from nothing shows no increase
    consumer = BatchConsumer(
        topic=NOTIFY_GROUP.topic,
        group=NOTIFY_GROUP.name,
        decode=decode,
        process=handler.process,
        producer=producer,
        metrics=consumer_metrics,
        settings=settings,
        on_bug=on_bug,
        # Milestones are rare, and a mail may leave a moment later: less is asked while there are none. Not much less: what
        # else this client asks the brokers, for readiness, waits behind each of its fetches.
        limits=ConsumerLimits(
            max_records=_MAX_RECORDS,
            batch_timeout_ms=200,
            fetch_min_bytes=1,
            fetch_max_wait_ms=100,
            dlq_ratio_limit=settings.dlq_ratio_limit,
        ),
        waits_for=("postgres", "catalogue"),
    )
    feed.subscribe(broker)
    consumer.subscribe(broker)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with background(on_bug, database.open(), producer.start_when_reachable(), sender.run(), upkeep.run()):
            yield
            sender.stop()
            await sender.ended(settings.drain_seconds)
        await producer.stop()
        await database.close()

    service = Service(
        name="notify",
        title="Groundswell notify",
        settings=settings,
        port=settings.port,
        broker=broker,
        registry=registry,
        lifespan=lifespan,
        checks={
            "kafka": consumer.check_brokers,
            "catalogue": feed.check,
            "postgres": database.check,
            "smtp": relay.check,
            "consumer": consumer.check,
        },
        on_stop=[consumer.drain, sender.stop],
    )
    return service
