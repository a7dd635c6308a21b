"""How verify reads ``signatures.submitted``."""

from __future__ import annotations

from services.verify.deciding.rules import SubmittedCommand
from services.verify.handlers import VerifyHandler
from services.verify.settings import Settings
from shared.contract.topics import VERIFY_GROUP
from shared.kafka.consuming.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.producing.producer import EventProducer
from shared.service import Base


def new_consumer(
    base: Base[Settings], handler: VerifyHandler, producer: EventProducer
) -> BatchConsumer[SubmittedCommand]:
    """The consumer that gives `handler` its batches."""
    settings = base.settings
    return BatchConsumer(
        topic=VERIFY_GROUP.topic,
        group=VERIFY_GROUP.name,
        decode=handler.decode,
        process=handler.process,
        producer=producer,
        metrics=ConsumerMetrics(base.registry),
        settings=settings,
        on_bug=base.crash.fail,
        limits=ConsumerLimits(max_records=settings.max_records, dlq_ratio_limit=settings.dlq_ratio_limit),
        waits_for=("postgres", "catalogue"),
    )
