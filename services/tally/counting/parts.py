"""The parts of the counting half: from facts on ``signatures.verified`` to counts, snapshots and milestones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.audit import AuditLoop
from services.tally.counting.facts import ReadFact
from services.tally.counting.handlers import TallyHandler, decode
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.settings import Settings
from shared import redis as shared_redis
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, TallyUpdated
from shared.contract.topics import TALLY_GROUP
from shared.kafka.consuming.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.producing.producer import EventProducer
from shared.postgres import Database
from shared.runtime.parts import Part
from shared.runtime.readiness import Check
from shared.service import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """The interface of the counting half to app.py and the reading half.

    Attributes:
        store: The counts, for readers.
        consumer: Reads the facts.
        parts: Connections and background tasks; connections first.
        checks: Readiness checks of everything that counting needs, except the catalogue.
        on_petition_change: Called with a petition that is new or changed.
        on_overtaken: Called with a petition's id and the version of a snapshot that came late on ``tallies.updated``.
        on_announced: Called with a snapshot on ``tallies.updated`` and its record's value.
    """

    store: TallyStore
    consumer: BatchConsumer[ReadFact]
    parts: Sequence[Part]
    checks: Mapping[str, Check]
    on_petition_change: Callable[[PetitionChanged], Awaitable[None]]
    on_overtaken: Callable[[str, tuple[int, int]], None]
    on_announced: Callable[[TallyUpdated, bytes], None]


def new_counting(
    base: Base[Settings], catalogue: Catalogue, *, announced: Callable[[str], TallyUpdated | None]
) -> Counting:
    """Put the counting half together.

    Args:
        base: Settings, metrics, crash switch.
        catalogue: The petitions.
        announced: Returns the newest known snapshot of a petition on ``tallies.updated``.
    """
    settings = base.settings
    redis = shared_redis.connect(settings.redis_url.get_secret_value())
    database = Database(settings.postgres_url.get_secret_value(), application=base.name)
    producer = EventProducer(settings)
    metrics = TallyMetrics(base.registry)
    store, ledger = TallyStore(redis, begun=catalogue.changed_at), Ledger(database)
    snapshots = SnapshotAnnouncer(
        store=store, producer=producer, metrics=metrics, interval_seconds=settings.snapshot_interval_ms / 1000
    )
    handler = TallyHandler(
        catalogue=catalogue,
        store=store,
        ledger=ledger,
        healer=Healer(redis=redis, store=store, ledger=ledger, metrics=metrics),
        milestones=MilestoneAnnouncer(ledger=ledger, store=store, producer=producer, metrics=metrics),
        snapshots=snapshots,
        producer=producer,
        metrics=metrics,
        announced=announced,
    )
    consumer = _new_consumer(base, handler, producer)
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
    return Counting(
        store=store,
        consumer=consumer,
        parts=[
            Part(run=database.open, close=database.close),
            Part(close=redis.aclose),
            Part(run=producer.start_when_reachable, close=producer.stop),
            Part(stop=consumer.drain),
            Part(run=handler.watch),
            Part(run=snapshots.run, close=partial(_flush, snapshots, settings.drain_seconds / 2)),
            Part(run=audits.run),
        ],
        checks={
            "kafka": consumer.check_brokers,
            "redis": partial(shared_redis.check, redis),
            "postgres": database.check,
            "consumer": consumer.check,
        },
        on_petition_change=handler.on_petition_change,
        on_overtaken=handler.on_overtaken,
        on_announced=handler.on_announced,
    )


def _new_consumer(base: Base[Settings], handler: TallyHandler, producer: EventProducer) -> BatchConsumer[ReadFact]:
    settings = base.settings
    return BatchConsumer(
        topic=TALLY_GROUP.topic,
        group=TALLY_GROUP.name,
        decode=decode,
        process=handler.process,
        producer=producer,
        metrics=ConsumerMetrics(base.registry),
        settings=settings,
        on_bug=base.crash.fail,
        # A fact costs less than the fetch, the commit and the Redis call of a batch, so batches are larger than verify's.
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


async def _flush(snapshots: SnapshotAnnouncer, seconds: float) -> None:
    with suppress(TimeoutError):  # the partitions' next owner publishes the rest
        async with asyncio.timeout(seconds):
            await snapshots.last_flush()
