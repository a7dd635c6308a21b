"""Reading a whole topic in every process: no consumer group, no commits, each instance sees every record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from shared.contract.topics import Topic
from shared.kafka.fetching.unreadable import Unreadable, log_unreadable


class BroadcastReader:
    """Hands every batch of records of a topic, raw, to `on_records`.

    `on_records` must not raise for what a record says: there is no position that could be held. What it raises all the
    same is a bug and goes to `on_bug`.

    What the Kafka client cannot unpack is passed over and logged; `on_unreadable` counts it.
    """

    def __init__(
        self,
        topic: Topic,
        on_records: Callable[[tuple[ConsumerRecord[Any, Any], ...]], Awaitable[None]],
        *,
        start: Literal["earliest", "latest"],
        on_bug: Callable[[BaseException], None],
        on_unreadable: Callable[[Unreadable], None],
    ) -> None:
        self._topic, self._on_records, self._start, self._on_bug = topic, on_records, start, on_bug
        self._on_unreadable = on_unreadable
        self._subscriber: Any = None
        self._in_hand = False  # whether records were polled that `on_records` has not finished with
        self._done: dict[int, int] = {}

    def subscribe(self, broker: KafkaBroker) -> None:
        """Register the FastStream subscriber. Call before the broker starts."""
        self._subscriber = broker.subscriber(
            self._topic.name,
            group_id=None,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset=self._start,
            batch_timeout_ms=50,
            fetch_max_wait_ms=50,
            parser=self._keep_raw,
            decoder=self._no_body,
            title=f"{self._topic.name} read by every instance",
            description=self._topic.holds,
        )
        self._subscriber(self._on_batch)
        poll = self._subscriber.get_msg

        async def noted(consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[Any, Any], ...]:
            records: tuple[ConsumerRecord[Any, Any], ...] = await poll(consumer)
            # Positions moved with these records, and nothing has run since: `done` is exact.
            self._in_hand = bool(records)
            return records

        self._subscriber.get_msg = noted

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The running client, or None before the broker has started or while it has no partitions."""
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer if self._subscriber is not None else None
        return consumer if consumer is not None and consumer.assignment() else None

    async def done(self, partition: int) -> int:
        """The offset up to which `on_records` has finished with a partition.

        It passes offsets that hold no record: marks of transactions, what compaction took, what could not be unpacked.

        Raises:
            aiokafka.errors.IllegalStateError: the partition is not assigned.
        """
        handled = self._done.get(partition, 0)
        consumer = self.consumer
        if consumer is None:
            return handled
        position = await consumer.position(TopicPartition(self._topic.name, partition))
        return handled if self._in_hand else max(handled, position)

    async def _keep_raw(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> KafkaMessage:
        # FastStream's metrics measure the body; nothing else looks at it.
        body = [record.value or b"" for record in records]
        return KafkaMessage(body=body, raw_message=records, consumer=self._subscriber.consumer)

    @staticmethod
    async def _no_body(_: KafkaMessage) -> None:
        return None

    async def _on_batch(self, message: KafkaMessage) -> None:
        records = cast("tuple[ConsumerRecord[Any, Any], ...]", message.raw_message)
        try:
            await self.take(records)
        except Exception as bug:  # noqa: BLE001  FastStream would log and swallow it
            self._on_bug(bug)

    async def take(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> None:
        """Hand over the records of one poll, without those that could not be unpacked."""
        readable = tuple(record for record in records if not self._is_unreadable(record))
        if readable:
            await self._on_records(readable)
        self._done.update({record.partition: record.offset + 1 for record in records})
        self._in_hand = False

    def _is_unreadable(self, record: ConsumerRecord[Any, Any]) -> bool:
        if not isinstance(record, Unreadable):
            return False
        log_unreadable(record)
        self._on_unreadable(record)
        return True
