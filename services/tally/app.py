"""Wiring of tally."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import structlog

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.audit import AuditLoop
from services.tally.counting.handlers import TallyHandler, decode
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.reading import routes
from services.tally.reading.live import LiveHub
from services.tally.reading.live_feed import LiveFeed
from services.tally.reading.metrics import ReadMetrics
from services.tally.reading.pages import PublicAddresses
from services.tally.settings import Settings
from shared import redis as shared_redis
from shared.asyncapi import document_writes
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED, TALLY_GROUP
from shared.kafka.catalogue_feed import CatalogueFeed
from shared.kafka.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.group_lag import GroupLag
from shared.kafka.metrics import ConsumerMetrics
from shared.kafka.producer import EventProducer
from shared.postgres import Database
from shared.runtime.background import background
from shared.service import Service, new_broker, new_registry

log = structlog.get_logger(__name__)


def build(settings: Settings) -> Service:
    """Put a tally process together; nothing connects before it is run."""
    registry = new_registry()
    broker = new_broker(settings, registry, "tally")
    redis = shared_redis.connect(settings.redis_url.get_secret_value())
    database = Database(settings.postgres_url.get_secret_value(), application="tally")
    producer = EventProducer(settings)
    metrics, read_metrics = TallyMetrics(registry), ReadMetrics(registry)
    catalogue = Catalogue()
    store, ledger = TallyStore(redis, begun=catalogue.changed_at), Ledger(database)
    snapshots = SnapshotAnnouncer(
        store=store, producer=producer, metrics=metrics, interval_seconds=settings.snapshot_interval_ms / 1000
    )
    hub = LiveHub(catalogue, read_metrics, max_subscribers=settings.max_streams)
    handler = TallyHandler(
        catalogue=catalogue,
        store=store,
        ledger=ledger,
        healer=Healer(redis=redis, store=store, ledger=ledger, metrics=metrics),
        milestones=MilestoneAnnouncer(ledger=ledger, store=store, producer=producer, metrics=metrics),
        snapshots=snapshots,
        producer=producer,
        metrics=metrics,
        announced=hub.announced,
    )

    def on_bug(bug: BaseException) -> None:
        service.fail(bug)

    consumer = BatchConsumer(
        topic=TALLY_GROUP.topic,
        group=TALLY_GROUP.name,
        decode=decode,
        process=handler.process,
        producer=producer,
        metrics=ConsumerMetrics(registry),
        settings=settings,
        on_bug=on_bug,
        # A fact costs less than fetching, committing and one call of Redis do: larger batches than verify's.
        limits=ConsumerLimits(
            max_records=settings.max_records,
            fetch_min_bytes=32 * 1024,
            fetch_max_wait_ms=40,
            dlq_ratio_limit=settings.dlq_ratio_limit,
        ),
        on_assigned=handler.on_assigned,
        on_revoked=handler.on_revoked,
        waits_for=("redis", "postgres", "catalogue"),
    )

    async def on_change(petition: PetitionChanged) -> None:
        await handler.on_petition_change(petition)
        hub.petition_changed(petition)

    feed = CatalogueFeed(catalogue, registry, on_bug=on_bug, on_change=on_change)
    live = LiveFeed(
        hub, read_metrics, on_bug=on_bug, on_overtaken=handler.on_overtaken, on_announced=handler.on_announced
    )
    audits = AuditLoop(
        store=store,
        ledger=ledger,
        metrics=metrics,
        owns=handler.owns,
        interval_seconds=settings.audit_seconds,
        heal=handler.heal if settings.heal else None,
        compare=handler.compare,
        lag=lambda: consumer.lag,
        thresholds=handler.thresholds,
        reached=handler.reached,
    )
    group_lag = GroupLag(settings, registry)
    feed.subscribe(broker)
    live.subscribe(broker)
    consumer.subscribe(broker)
    document_writes(broker, TALLIES_UPDATED.name, MILESTONES_REACHED.name)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with background(
            on_bug,
            database.open(),
            producer.start_when_reachable(),
            handler.watch(),
            snapshots.run(),
            audits.run(),
            group_lag.run(),
        ):
            yield
        with suppress(TimeoutError):  # what is not published now, the next owner of the partitions publishes
            async with asyncio.timeout(settings.drain_seconds / 2):
                await snapshots.last_flush()
        await producer.stop()
        await redis.aclose()
        await database.close()

    service = Service(
        name="tally",
        title="Groundswell tally",
        settings=settings,
        port=settings.port,
        broker=broker,
        registry=registry,
        lifespan=lifespan,
        checks={"catalogue": feed.check},
        # Pages, API and streams are served without any of these. All instances share them: a load balancer that took every
        # instance away would take the pages away, too.
        side_checks={
            "kafka": consumer.check_brokers,
            "redis": partial(shared_redis.check, redis),
            "postgres": database.check,
            "consumer": consumer.check,
        },
        routes=routes.build(
            catalogue,
            store,
            hub,
            read_metrics,
            addresses=PublicAddresses(ingest=settings.public_ingest_url.rstrip("/"), pages=settings.public_pages_url),
            stall_seconds=settings.http_stall_seconds,
        ),
        on_stop=[consumer.drain, hub.close],
    )
    return service
