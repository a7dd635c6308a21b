"""Fills a `Catalogue` from ``petitions.changed``: every instance reads the whole compacted topic, then follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import ValidationError

from shared.bounds import COMMAND_AHEAD, EARLIEST, arrival, as_time, fit
from shared.catalogue import Catalogue
from shared.events import PetitionChanged
from shared.kafka.broadcast import BroadcastReader
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
        on_bug: Callable[[BaseException], None],
        on_change: Callable[[PetitionChanged], Awaitable[None]] | None = None,
    ) -> None:
        self._catalogue, self._on_change = catalogue, on_change
        self._reader = BroadcastReader(PETITIONS_CHANGED, self._on_records, start="earliest", on_bug=on_bug)
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
        self._reader.subscribe(broker)

    @property
    def complete(self) -> bool:
        """Whether everything has been applied that was on the topic when this process started."""
        return self._complete.is_set()

    async def check(self) -> str | None:
        """Readiness: has everything been read that was on the topic when this process started?"""
        if self.complete:
            return None
        consumer = self._reader.consumer
        if consumer is None:
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
        consumer = self._reader.consumer
        if consumer is None:
            raise CatalogueBehind("petitions.changed is not being read yet")
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                ends = await self._ends(consumer)  # the client would ask a Kafka that is away for 40 seconds
                while self._behind(ends):
                    self._applied.clear()
                    await self._applied.wait()
        except TimeoutError:
            raise CatalogueBehind("not all of petitions.changed was read in time") from None
        self._complete.set()

    async def _ends(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        """The offset after the last record, of every partition that has any."""
        ends = await consumer.end_offsets(list(consumer.assignment()))
        # Each question waits behind the fetch that is under way (50 ms), so the second one is asked only when it matters:
        # a partition that was never read may have lost all its records.
        unread = [tp for tp, end in ends.items() if end > 0 and tp.partition not in self._done]
        starts = await consumer.beginning_offsets(unread) if unread else {}
        return {tp.partition: end for tp, end in ends.items() if end > starts.get(tp, 0)}

    def _behind(self, ends: dict[int, int]) -> int:
        return sum(max(0, end - self._done.get(partition, 0)) for partition, end in ends.items())

    async def _on_records(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> None:
        for record in records:
            await self._apply(record)
            self._done[record.partition] = record.offset + 1
        self._applied.set()

    async def _apply(self, record: ConsumerRecord[Any, Any]) -> None:
        if record.value is None:
            self._catalogue.remove((record.key or b"").decode("utf-8", "replace"))
            return
        try:
            _, event_type = read_attributes(record.headers)
            if event_type != PetitionChanged.TYPE:
                raise NotACloudEvent(f"type {event_type} does not belong on this topic")
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
        petition = _of_the_present(petition, record)
        self._catalogue.apply(petition)
        if self._on_change is not None:
            await self._on_change(petition)


def _of_the_present(petition: PetitionChanged, record: ConsumerRecord[Any, Any]) -> PetitionChanged:
    """The petition, changed when its record arrived if it says another day.

    The order of the topic decides which state is the newest, so the state holds. But where the latest change of several
    petitions is looked for, one from a clock in the year 2101 would be it for ever.
    """
    if fit(record, COMMAND_AHEAD, petition.changed_at):
        return petition
    arrived = arrival(record.timestamp, record.timestamp_type)
    return petition.model_copy(update={"changed_at": EARLIEST if arrived is None else as_time(arrived)})
