"""How notify reads ``milestones.reached``."""

from __future__ import annotations

from typing import Final

from services.notify.milestones.handlers import NOT_DECIDED, MilestoneHandler, decode
from services.notify.settings import Settings
from shared.contract.events import MilestoneReached
from shared.contract.topics import NOTIFY_GROUP
from shared.kafka.consuming.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.producing.producer import EventProducer
from shared.service import Base

_MAX_RECORDS: Final = 200
"""Most milestones of a batch. Each is one row per target, and a petition may have 50: at most 10,000 rows a transaction."""


def new_consumer(
    base: Base[Settings], handler: MilestoneHandler, producer: EventProducer
) -> BatchConsumer[MilestoneReached]:
    """The consumer that gives `handler` its batches."""
    settings, metrics = base.settings, ConsumerMetrics(base.registry)
    # Exists from the start, at 0, so that Prometheus sees the first one.
    metrics.dead_letters.labels(reason=NOT_DECIDED)
    return BatchConsumer(
        topic=NOTIFY_GROUP.topic,
        group=NOTIFY_GROUP.name,
        decode=decode,
        process=handler.process,
        producer=producer,
        metrics=metrics,
        settings=settings,
        on_bug=base.crash.fail,
        # Milestones are rare, and a mail may be sent a moment later, so fetches wait longer than elsewhere. Not much longer:
        # the readiness check uses the same client, and its requests wait behind each fetch.
        limits=ConsumerLimits(
            max_records=_MAX_RECORDS,
            batch_timeout_ms=200,
            fetch_min_bytes=1,
            fetch_max_wait_ms=100,
            dlq_ratio_limit=settings.dlq_ratio_limit,
        ),
        waits_for=("postgres", "catalogue"),
    )
