"""Fills the `LiveHub` from ``tallies.updated``: every instance reads the whole compacted topic, then follows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord

from services.tally.announced import UNREADABLE, NoSnapshot, read_snapshot
from services.tally.reading.live import LiveHub
from services.tally.reading.metrics import ReadMetrics
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from shared.kafka.broadcasting.broadcast import BroadcastReader
from shared.kafka.fetching.unreadable import Unreadable
from shared.kafka.registration import FastStreamBroker, Records

log = structlog.get_logger(__name__)


_NO_VERSION: Final = (0, -1)
"""A version below all others, for a topic without a valid snapshot."""


class LiveFeed:
    """Feeds the hub of every instance, so that each can show all petitions live, whichever instance counts them.

    Args:
        hub: The hub to fill.
        metrics: The metrics of the read side.
        on_bug: Ends the process.
        on_overtaken: Called with a petition and a version if that is the last one on the topic although a higher one came
            before it: a zombie has published late, and a new subscriber would accept it.
        on_announced: Called with every snapshot that was the newest of its petition in a batch, and its record's value:
            the petition's owner compares it with the count.
    """

    def __init__(
        self,
        hub: LiveHub,
        metrics: ReadMetrics,
        *,
        on_bug: Callable[[BaseException], None],
        on_overtaken: Callable[[str, tuple[int, int]], None],
        on_announced: Callable[[TallyUpdated, bytes], None] = lambda _, __: None,
    ) -> None:
        self._hub, self._metrics = hub, metrics
        self._on_overtaken, self._on_announced = on_overtaken, on_announced
        self._reader = BroadcastReader(
            TALLIES_UPDATED,
            self._on_records,
            start="earliest",
            on_bug=on_bug,
            on_unreadable=self._count_unreadable,
        )

    def subscribe(self, broker: FastStreamBroker) -> None:
        """Register the subscriber. Call before the broker starts."""
        self._reader.subscribe(broker)

    def _count_unreadable(self, record: Unreadable) -> None:
        if record.is_batch:
            self._metrics.unreadable_batches.inc()
        else:
            self._metrics.snapshots.labels(kind="unreadable").inc()

    async def _on_records(self, records: Records) -> None:
        newest: dict[str, tuple[TallyUpdated, bytes]] = {}
        last: dict[str, TallyUpdated] = {}
        for record in records:
            snapshot = self._read(record)
            if snapshot is None:
                continue
            last[snapshot.petition_id] = snapshot
            known = newest.get(snapshot.petition_id)
            if known is None or snapshot.version >= known[0].version:
                newest[snapshot.petition_id] = snapshot, record.value or b""
        # Snapshots are complete, so only the newest one of each petition in a batch is sent.
        for snapshot, value in newest.values():
            self._hub.publish(snapshot)
            self._on_announced(snapshot, value)
        for snapshot in last.values():
            if snapshot.version < self._hub.newest(snapshot).version:
                self._on_overtaken(snapshot.petition_id, snapshot.version)

    def _read(self, record: ConsumerRecord[Any, Any]) -> TallyUpdated | None:
        """The snapshot in a record; None, counted and logged, if tally cannot have written it."""
        try:
            return read_snapshot(record)
        except NoSnapshot as error:
            self._passed_over(error.kind, record)
            return None

    def _passed_over(self, kind: str, record: ConsumerRecord[Any, Any]) -> None:
        self._metrics.snapshots.labels(kind=kind).inc()
        event = "snapshot_unreadable" if kind == UNREADABLE else "snapshot_foreign"
        log.error(event, partition=record.partition, offset=record.offset)
        # It is the last record of its key, and the topic is compacted, so a new reader may find no other.
        self._on_overtaken((record.key or b"").decode("utf-8", "replace"), _NO_VERSION)
