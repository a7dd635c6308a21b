"""The one place that registers with FastStream which topics a service reads and writes.

FastStream runs the consuming clients: it starts and stops them, polls, and measures. It could also decode, acknowledge and
publish records; none of that is used (docs/adr/0005-one-batch-consumer.md says why). Its AsyncAPI document names the topics
that are registered here (`shared.asyncapi`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.abc import ConsumerRebalanceListener
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from shared.contract.topics import Topic

FastStreamBroker: TypeAlias = KafkaBroker

Records: TypeAlias = tuple[ConsumerRecord[Any, Any], ...]
"""The records of one poll, in order within each partition."""


class RawSubscriber:
    """A batch subscriber that passes on the records of each poll as the Kafka client read them.

    FastStream would decode the whole batch before the handler runs, and one bad record or header would fail the batch.

    The constructor registers the subscriber; call it before the broker starts.

    Args:
        broker: The broker at which to register.
        topic: The topic to read.
        on_records: Takes the records of one poll. The next poll waits until it returns.
        on_bug: Called with what `on_records` raises. FastStream would log it and go on.
        reader: Name of the reader in the AsyncAPI document.
        group: The consumer group; without one, every instance reads all partitions.
        start: Where to begin if there is no group or it has committed nothing.
        max_records: Maximum records of one poll.
        batch_timeout_ms: Maximum wait of a poll for a first record; also how long FastStream sleeps after an empty poll.
        listener: Called at every rebalance.
        options: Further options of `aiokafka.AIOKafkaConsumer`.
    """

    def __init__(
        self,
        broker: FastStreamBroker,
        topic: Topic,
        on_records: Callable[[Records], Awaitable[None]],
        *,
        on_bug: Callable[[BaseException], None],
        reader: str,
        group: str | None,
        start: Literal["earliest", "latest"],
        batch_timeout_ms: int,
        max_records: int | None = None,
        listener: ConsumerRebalanceListener | None = None,
        **options: Any,
    ) -> None:
        self._on_records, self._on_bug = on_records, on_bug
        self.in_hand = False
        """Whether records were polled for which `on_records` has not returned yet."""
        self._subscriber: Any = broker.subscriber(
            topic.name,
            group_id=group,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset=start,
            max_records=max_records,
            batch_timeout_ms=batch_timeout_ms,
            listener=listener,
            parser=self._keep_raw,
            decoder=self._no_body,
            title=f"{topic.name} read by {reader}",
            description=topic.holds,
            **options,
        )
        self._subscriber(self._hand_on)

    @property
    def consumer(self) -> AIOKafkaConsumer | None:
        """The client; None before the broker has started and after it has stopped."""
        consumer: AIOKafkaConsumer | None = self._subscriber.consumer
        return consumer

    @property
    def running(self) -> bool:
        """Whether polled records reach `on_records`. FastStream drops them once a stop has begun."""
        return bool(self._subscriber.running)

    async def _keep_raw(self, records: Records) -> KafkaMessage:
        # The client's positions moved with these records, and nothing else has run since (tests/integration/
        # test_registration.py), so no code sees the new positions without `in_hand`.
        self.in_hand = True
        # FastStream's metrics measure the body; nothing else uses it.
        body = [record.value or b"" for record in records]
        return KafkaMessage(body=body, raw_message=records, consumer=self._subscriber.consumer)

    @staticmethod
    async def _no_body(_: KafkaMessage) -> None:
        return None

    async def _hand_on(self, message: KafkaMessage) -> None:
        try:
            await self._on_records(cast("Records", message.raw_message))
        except Exception as bug:  # noqa: BLE001  FastStream would log and swallow it
            self._on_bug(bug)
        else:
            self.in_hand = False


def document_writes(broker: FastStreamBroker, *topics: str) -> None:
    """Register the topics that a service writes, for its AsyncAPI document. `EventProducer` writes them."""
    for topic in topics:
        broker.publisher(topic, title=topic)
