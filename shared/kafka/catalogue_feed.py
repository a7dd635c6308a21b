"""Fills a `Catalogue` from ``petitions.changed``: every instance reads the whole compacted topic, then follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import ValidationError

from shared.catalogue import Catalogue
from shared.events import PetitionChanged
from shared.kafka.headers import NotACloudEvent, read_attributes
from shared.topics import PETITIONS_CHANGED

log = structlog.get_logger(__name__)


class CatalogueFeed:
    """Reads ``petitions.changed`` without a consumer group, from its beginning, and applies each record.

    A record that cannot be read is counted and logged, and the petition's last good state stays. It is not moved to a
    dead-letter topic: it stays on the compacted topic, every instance would move it again at every start.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        registry: CollectorRegistry,
        *,
        on_change: Callable[[PetitionChanged], Awaitable[None]] | None = None,
    ) -> None:
        self._catalogue, self._on_change = catalogue, on_change
        self._subscriber: Any = None
        self._ends: dict[Any, int] | None = None
        self._done: dict[int, int] = {}
        self._complete = asyncio.Event()
        self._unreadable = Counter(
            "groundswell_catalogue_unreadable_records",
            "Records of petitions.changed that could not be read; the petition keeps its last good state",
            registry=registry,
        )
        petitions = Gauge("groundswell_catalogue_petitions", "Petitions this process knows", registry=registry)
        petitions.set_function(lambda: len(catalogue))

    def subscribe(self, broker: KafkaBroker) -> None:
        """Register the FastStream subscriber. Call before the broker starts."""
        self._subscriber = broker.subscriber(
            PETITIONS_CHANGED.name,
            group_id=None,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            batch_timeout_ms=50,
            fetch_max_wait_ms=50,
            parser=self._keep_raw,
            decoder=self._no_body,
            title=f"{PETITIONS_CHANGED.name} read by every instance",
            description=PETITIONS_CHANGED.holds,
        )
        self._subscriber(self._on_batch)

    async def _keep_raw(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> KafkaMessage:
        return KafkaMessage(body=b"", raw_message=records, consumer=self._subscriber.consumer)

    @staticmethod
    async def _no_body(_: KafkaMessage) -> None:
        return None

    async def check(self) -> str | None:
        """Readiness: has everything been read that was on the topic when this process started?"""
        if self._complete.is_set():
            return None
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer
        if consumer is None or not consumer.assignment():
            return "petitions.changed is not being read yet"
        if self._ends is None:
            self._ends = await consumer.end_offsets(list(consumer.assignment()))
        behind = 0
        for partition, end in self._ends.items():
            if end > 0:  # compaction may have removed all records; the position passes the end all the same
                behind += max(0, end - max(self._done.get(partition.partition, 0), await consumer.position(partition)))
        if behind == 0:
            self._complete.set()
            return None
        return f"{behind} records of petitions.changed still to read"

    async def _on_batch(self, message: KafkaMessage) -> None:
        records = cast("tuple[ConsumerRecord[Any, Any], ...]", message.raw_message)
        for record in records:
            await self._apply(record)
            self._done[record.partition] = record.offset + 1

    async def _apply(self, record: ConsumerRecord[Any, Any]) -> None:
        if record.value is None:
            self._catalogue.remove((record.key or b"").decode("utf-8", "replace"))
            return
        try:
            attributes = read_attributes(record.headers)
            if attributes.type != PetitionChanged.TYPE:
                raise NotACloudEvent(f"type {attributes.type} does not belong on this topic")
            petition = PetitionChanged.model_validate_json(record.value)
        except (ValidationError, NotACloudEvent) as error:
            self._unreadable.inc()
            log.error(
                "petition_unreadable",
                partition=record.partition,
                offset=record.offset,
                cause=type(error).__name__,
            )
            return
        self._catalogue.apply(petition)
        if self._on_change is not None:
            await self._on_change(petition)
