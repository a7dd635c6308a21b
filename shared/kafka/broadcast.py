"""Reading a whole topic in every process: no consumer group, no commits, each instance sees every record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from shared.topics import Topic


class BroadcastReader:
    """Hands every batch of records of a topic, raw, to `on_records`.

    `on_records` must not raise for what a record says: there is no position that could be held. What it raises all the
    same is a bug and goes to `on_bug`.
    """

    def __init__(
        self,
        topic: Topic,
        on_records: Callable[[tuple[ConsumerRecord[Any, Any], ...]], Awaitable[None]],
        *,
        start: Literal["earliest", "latest"],
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._topic, self._on_records, self._start, self._on_bug = topic, on_records, start, on_bug
        self._subscriber: Any = None

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

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The running client, or None before the broker has started or while it has no partitions."""
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer
        return consumer if consumer is not None and consumer.assignment() else None

    async def _keep_raw(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> KafkaMessage:
        # FastStream's metrics measure the body; nothing else looks at it.
        body = [record.value or b"" for record in records]
        return KafkaMessage(body=body, raw_message=records, consumer=self._subscriber.consumer)

    @staticmethod
    async def _no_body(_: KafkaMessage) -> None:
        return None

    async def _on_batch(self, message: KafkaMessage) -> None:
        try:
            await self._on_records(cast("tuple[ConsumerRecord[Any, Any], ...]", message.raw_message))
        except Exception as bug:  # noqa: BLE001  FastStream would log and swallow it
            self._on_bug(bug)
