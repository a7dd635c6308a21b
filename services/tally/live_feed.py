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
from shared.kafka.unpacking import Unreadable
from shared.topics import TALLIES_UPDATED

log = structlog.get_logger(__name__)


class LiveFeed:
    """Whichever instance counts a petition, all of them can show it live.

    Args:
        on_overtaken: called with a petition and a revision when that is the last one on the topic although a higher one
            came before it: a process that had lost its partitions unawares has published late, and a subscriber who
            begins now would believe it.
    """

    def __init__(
        self,
        hub: LiveHub,
        metrics: ReadMetrics,
        *,
        on_bug: Callable[[BaseException], None],
        on_overtaken: Callable[[str, int], None],
    ) -> None:
        self._hub, self._metrics, self._on_overtaken = hub, metrics, on_overtaken
        self._reader = BroadcastReader(
            TALLIES_UPDATED,
            self._on_records,
            start="earliest",
            on_bug=on_bug,
            on_unreadable=self._count_unreadable,
        )

    def subscribe(self, broker: KafkaBroker) -> None:
        """Register the FastStream subscriber. Call before the broker starts."""
        self._reader.subscribe(broker)

    def _count_unreadable(self, record: Unreadable) -> None:
        if record.is_batch:
            self._metrics.unreadable_batches.inc()
        else:
            self._metrics.snapshots.labels(kind="unreadable").inc()

    async def _on_records(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> None:
        newest: dict[str, TallyUpdated] = {}
        last: dict[str, TallyUpdated] = {}
        for record in records:
            try:
                snapshot = TallyUpdated.model_validate_json(record.value or b"")
            except ValidationError:
                self._metrics.snapshots.labels(kind="unreadable").inc()
                log.error("snapshot_unreadable", partition=record.partition, offset=record.offset)
                continue
            last[snapshot.petition_id] = snapshot
            known = newest.get(snapshot.petition_id)
            if known is None or snapshot.revision > known.revision:
                newest[snapshot.petition_id] = snapshot
        # Snapshots are whole: of several in a batch, only each petition's newest one is worth sending.
        for snapshot in newest.values():
            self._hub.publish(snapshot)
        for snapshot in last.values():
            if snapshot.revision < self._hub.newest(snapshot).revision:
                self._on_overtaken(snapshot.petition_id, snapshot.revision)
