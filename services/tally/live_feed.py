"""Fills the `LiveHub` from ``tallies.updated``: every instance reads the whole compacted topic, then follows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import ConsumerRecord
from faststream.kafka import KafkaBroker
from pydantic import ValidationError

from services.tally.live import LiveHub
from services.tally.read_metrics import ReadMetrics
from shared.events import TallyUpdated
from shared.kafka.broadcast import BroadcastReader
from shared.topics import TALLIES_UPDATED

log = structlog.get_logger(__name__)


class LiveFeed:
    """Whichever instance counts a petition, all of them can show it live."""

    def __init__(self, hub: LiveHub, metrics: ReadMetrics, *, on_bug: Callable[[BaseException], None]) -> None:
        self._hub, self._metrics = hub, metrics
        self._reader = BroadcastReader(TALLIES_UPDATED, self._on_records, start="earliest", on_bug=on_bug)

    def subscribe(self, broker: KafkaBroker) -> None:
        """Register the FastStream subscriber. Call before the broker starts."""
        self._reader.subscribe(broker)

    async def _on_records(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> None:
        # Snapshots are whole: of several in a batch, only each petition's last one is worth sending.
        newest = {record.key: record for record in records}
        for record in newest.values():
            try:
                snapshot = TallyUpdated.model_validate_json(record.value or b"")
            except ValidationError:
                self._metrics.snapshots.labels(kind="unreadable").inc()
                log.error("snapshot_unreadable", partition=record.partition, offset=record.offset)
                continue
            self._hub.publish(snapshot)
