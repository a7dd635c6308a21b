"""Reads a whole topic in every process: without a consumer group or commits, each instance gets every record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from shared.contract.topics import Topic
from shared.kafka.fetching.unreadable import Unreadable, log_unreadable
from shared.kafka.registration import FastStreamBroker, RawSubscriber, Records


class BroadcastReader:
    """Passes every batch of raw records of a topic to `on_records`.

    `on_records` must not raise because of a record's content: there is no position that could be held. Any exception is a
    bug and goes to `on_bug`.

    Records that the Kafka client cannot unpack are skipped and logged; `on_unreadable` counts them.
    """

    def __init__(
        self,
        topic: Topic,
        on_records: Callable[[Records], Awaitable[None]],
        *,
        start: Literal["earliest", "latest"],
        on_bug: Callable[[BaseException], None],
        on_unreadable: Callable[[Unreadable], None],
    ) -> None:
        self._topic, self._on_records, self._start, self._on_bug = topic, on_records, start, on_bug
        self._on_unreadable = on_unreadable
        self._subscriber: RawSubscriber | None = None
        self._done: dict[int, int] = {}

    def subscribe(self, broker: FastStreamBroker) -> None:
        """Register the subscriber. Call before the broker starts."""
        self._subscriber = RawSubscriber(
            broker,
            self._topic,
            self.take,
            on_bug=self._on_bug,
            reader="every instance",
            group=None,
            start=self._start,
            batch_timeout_ms=50,
            fetch_max_wait_ms=50,
        )

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The running client; None before the broker has started and while the client has no partitions."""
        consumer = self._subscriber.consumer if self._subscriber is not None else None
        return consumer if consumer is not None and consumer.assignment() else None

    async def done(self, partition: int) -> int:
        """Return the offset up to which `on_records` has finished with a partition.

        It includes offsets without a record: transaction markers, compacted records, records that could not be unpacked.

        Raises:
            aiokafka.errors.IllegalStateError: the partition is not assigned.
        """
        handled = self._done.get(partition, 0)
        consumer, subscriber = self.consumer, self._subscriber
        if consumer is None or subscriber is None:
            return handled
        position = await consumer.position(TopicPartition(self._topic.name, partition))
        # The position is after the polled records. They may still be in hand, or dropped because of a stop.
        return max(handled, position) if subscriber.running and not subscriber.in_hand else handled

    async def take(self, records: Records) -> None:
        """Pass on the records of one poll, without those that could not be unpacked."""
        readable = tuple(record for record in records if not self._is_unreadable(record))
        if readable:
            await self._on_records(readable)
        self._done.update({record.partition: record.offset + 1 for record in records})

    def _is_unreadable(self, record: ConsumerRecord[Any, Any]) -> bool:
        if not isinstance(record, Unreadable):
            return False
        log_unreadable(record)
        self._on_unreadable(record)
        return True
