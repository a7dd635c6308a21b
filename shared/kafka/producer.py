"""The producer: every answer waits for the broker's acknowledgement, and facts reach a partition in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from shared.kafka.headers import Headers
from shared.settings import CommonSettings
from shared.topics import DLQ_MAX_RECORD_BYTES

_BATCH_BYTES = 512 * 1024
"""A batch in `publish_in_order`. Half of the brokers' default limit: compression could also make a batch grow."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives `key` (murmur2), as every other client computes it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class EventProducer:
    """An aiokafka producer with ``acks=all``, and one way to publish that keeps order when a send fails.

    `publish` is for single records. `publish_in_order` is for facts: within a partition it sends the next batch only
    after the last one was acknowledged. A plain sequence of sends does not give that: if an earlier batch fails for good
    and a later one gets through, a reader sees position 7 before 6, moves its fence past 6, and 6 is never counted.
    """

    def __init__(self, settings: CommonSettings, *, linger_ms: int = 2) -> None:
        compression = None if settings.kafka_compression == "none" else settings.kafka_compression
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka_bootstrap_servers,
            acks="all",
            enable_idempotence=settings.kafka_idempotence,
            compression_type=compression,
            linger_ms=linger_ms,
            max_batch_size=_BATCH_BYTES,
            max_request_size=DLQ_MAX_RECORD_BYTES,
            # How long a send may stay unacknowledged before it fails: longer than a leader election, shorter than a
            # person waits for a form.
            request_timeout_ms=10_000,
        )
        self._started = False

    @property
    def started(self) -> bool:
        """Whether the producer has reached the brokers once."""
        return self._started

    async def start(self) -> None:
        """Connect.

        Raises:
            aiokafka.errors.KafkaConnectionError: no broker answers.
        """
        await self._producer.start()
        self._started = True

    async def stop(self) -> None:
        """Send what is still buffered, then close."""
        if self._started:
            self._started = False
            await self._producer.stop()

    async def publish(self, topic: str, record: Record) -> None:
        """Publish one record and wait until the brokers have acknowledged it.

        Raises:
            aiokafka.errors.KafkaError: not acknowledged; the record may or may not be on the topic.
        """
        await self._producer.send_and_wait(topic, value=record.value, key=record.key, headers=record.headers)

    async def publish_in_order(self, topic: str, records: Iterable[Record]) -> None:
        """Publish records, each partition's in the given order, and wait until all are acknowledged.

        Raises:
            aiokafka.errors.KafkaError: some record was not acknowledged. In every partition the acknowledged ones are
                then a prefix of those given, so publishing all of them again keeps the order of first appearances.
        """
        partitions = await self._partitions(topic)
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(partition_of(record.key or b"", partitions), []).append(record)
        results = await asyncio.gather(
            *(self._publish_partition(topic, partition, part) for partition, part in by_partition.items()),
            return_exceptions=True,  # all must have ended before the caller may start again: no send outlives this call
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _partitions(self, topic: str) -> int:
        return len(await self._producer.partitions_for(topic))

    async def _publish_partition(self, topic: str, partition: int, records: list[Record]) -> None:
        batch: BatchBuilder = self._producer.create_batch()
        for record in records:
            if self._append(batch, record) is None:
                await self._send(batch, topic, partition)
                batch = self._producer.create_batch()
                if self._append(batch, record) is None:
                    raise ValueError("an empty batch did not take one record")
        await self._send(batch, topic, partition)

    @staticmethod
    def _append(batch: BatchBuilder, record: Record) -> Any:
        return batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers)

    async def _send(self, batch: BatchBuilder, topic: str, partition: int) -> None:
        batch.close()
        acknowledged = await self._producer.send_batch(batch, topic, partition=partition)
        await acknowledged
