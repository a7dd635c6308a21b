"""Writes records directly to a topic, bypassing the services, and remembers their places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, Message, TopicPartition

from shared.kafka.records.record import Headers

_ACKNOWLEDGED_SECONDS: Final = 80.0
"""Seconds: longer than any fault of the broker, shorter than a fault may take."""
_ASK_SECONDS: Final = 5.0


class NotWritten(TimeoutError):
    """The broker has not acknowledged every record. It is not known whether or where they are."""


class RecordWriter:
    """A producer of raw records. `await close()` returns when all are acknowledged.

    Args:
        bootstrap_servers: the broker itself, not a proxy.
        topic: to write to.
        compression: as Kafka names it. Limits are about the compressed size.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, compression: str = "none") -> None:
        self._topic = topic
        self._failed: list[str] = []
        self.written = 0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,  # a retried record is written once, at the reported place
                "message.timeout.ms": int(_ACKNOWLEDGED_SECONDS * 1000),
                "message.max.bytes": 32 * 1024 * 1024,  # the client's limit; the broker decides what the topic takes
                "compression.type": compression,
                "log_level": 0,
            }
        )

    async def partitions(self) -> list[int]:
        """The topic's partitions."""
        known = await asyncio.to_thread(lambda: self._producer.list_topics(self._topic, timeout=_ASK_SECONDS))
        return sorted(known.topics[self._topic].partitions)

    def put(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        *,
        then: Callable[[int, int], None],
    ) -> None:
        """Send one record; `then` is called with its partition and offset once it is acknowledged, before `close` ends."""

        def acknowledged(error: KafkaError | None, record: Message) -> None:
            if error is not None:
                self._failed.append(str(error))
            else:
                self.written += 1
                then(int(record.partition() or 0), int(record.offset() or 0))

        self._producer.produce(
            self._topic, value=value, key=key, headers=list(headers), partition=partition, on_delivery=acknowledged
        )
        self._producer.poll(0)

    async def close(self) -> None:
        """Wait until everything is acknowledged.

        Raises:
            NotWritten: something is not.
        """
        left = await asyncio.to_thread(self._producer.flush, _ACKNOWLEDGED_SECONDS)
        if left or self._failed:
            raise NotWritten(f"{left} records not acknowledged, {len(self._failed)} refused: {self._failed[:3]}")


class Ends:
    """Reads the ends of a topic, by partition.

    Args:
        bootstrap_servers: the broker itself, not a proxy.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": bootstrap_servers, "group.id": "outside", "log_level": 0}
        )

    async def of(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        """The offset after the last record of each partition.

        Raises:
            confluent_kafka.KafkaException: the broker does not answer now.
        """
        return await asyncio.to_thread(
            lambda: {
                partition: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ASK_SECONDS)[
                    1
                ]
                for partition in partitions
            }
        )

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
