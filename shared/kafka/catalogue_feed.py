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


_CATCH_UP_SECONDS = 5.0


class CatalogueBehind(ConnectionError):
    """The catalogue does not hold yet what is on the topic. Transient: hold and try again."""


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
        self._at_start: dict[int, int] | None = None
        self._done: dict[int, int] = {}
        self._complete = asyncio.Event()
        self._applied = asyncio.Event()
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
        if self._at_start is None:
            self._at_start = await self._ends(consumer)
        behind = self._behind(self._at_start)
        if behind:
            return f"{behind} records of petitions.changed still to read"
        self._complete.set()
        return None

    async def catch_up(self) -> None:
        """Wait until everything has been applied that is on the topic now.

        After this, a petition that another service knew when it wrote an event is known here too.

        Raises:
            CatalogueBehind: not caught up within five seconds; Kafka is away or slow, trying again later can help.
        """
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer
        if consumer is None or not consumer.assignment():
            raise CatalogueBehind("petitions.changed is not being read yet")
        ends = await self._ends(consumer)
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                while self._behind(ends):
                    self._applied.clear()
                    await self._applied.wait()
        except TimeoutError:
            raise CatalogueBehind(f"{self._behind(ends)} records of petitions.changed still to read") from None
        self._complete.set()

    @staticmethod
    async def _ends(consumer: AIOKafkaConsumer) -> dict[int, int]:
        """The offset after the last record, of every partition that has any."""
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        return {tp.partition: end for tp, end in ends.items() if end > starts[tp]}

    def _behind(self, ends: dict[int, int]) -> int:
        return sum(max(0, end - self._done.get(partition, 0)) for partition, end in ends.items())

    async def _on_batch(self, message: KafkaMessage) -> None:
        records = cast("tuple[ConsumerRecord[Any, Any], ...]", message.raw_message)
        for record in records:
            await self._apply(record)
            self._done[record.partition] = record.offset + 1
        self._applied.set()

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
