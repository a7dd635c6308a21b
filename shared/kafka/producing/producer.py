"""The producer: every call waits for the brokers' acknowledgement, and facts reach each partition in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from shared.contract.bounds import arrival
from shared.contract.topics import DLQ_MAX_RECORD_BYTES, compression_of, max_record_bytes
from shared.kafka.producing import compression
from shared.kafka.producing.accumulator import Accumulator, UnderWay
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.record import Record
from shared.kafka.security import client_options, why_unreachable
from shared.runtime.backoff import Backoff
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient
from shared.runtime.settings import CommonSettings

log = structlog.get_logger(__name__)

_BATCH_BYTES = 512 * 1024
"""Maximum size of a batch, uncompressed. Half of the brokers' default limit, because compression may also make a batch
larger."""

_LINGER_SECONDS, _LINGER_RECORDS = 0.010, 48
"""Linger of a single record, in seconds; half of it once this many records wait."""

_BACKOFF: Final = Backoff(0.2, 5.0)
"""Seconds between two tries to connect."""

_BROKEN_SEQUENCE = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerIdMapping, ProducerFenced)
"""An idempotent producer numbers its batches. aiokafka uses a number even for a batch that then fails for good (too large,
or no leader for too long); from then on the brokers refuse everything that it sends to that partition."""


def _is_broken_by(error: KafkaError) -> bool:
    """Return whether a producer that failed with `error` can never send again.

    aiokafka raises a bare `KafkaError` when its sender task has died of an unexpected error.
    """
    return isinstance(error, _BROKEN_SEQUENCE) or type(error) is KafkaError


class ProducerReplaced(KafkaConnectionError):
    """The producer could not send any more and was replaced. Transient: send again."""


def fits(topic: str, record: Record) -> bool:
    """Return whether `topic` accepts a record of this size, uncompressed and alone in its batch."""
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, [*record.headers])
    return int(size) <= max_record_bytes(topic)


def require_fits(topic: str, record: Record) -> None:
    """Check that a record is not too large for `topic`.

    Raises:
        aiokafka.errors.MessageSizeTooLargeError: it is larger than `topic` accepts.
    """
    if not fits(topic, record):
        raise MessageSizeTooLargeError(f"the record is larger than {max_record_bytes(topic)} bytes")


class EventProducer:
    """An aiokafka producer with ``acks=all``, and a way to publish that keeps the order when a send fails.

    `publish` is for single records, which share batches with other records of the same time (`Accumulator`).
    `publish_in_order` is for facts: within a partition it sends the next batch only after the previous one was
    acknowledged. A plain sequence of sends does not guarantee that: if an earlier batch fails for good and a later one
    succeeds, a reader sees position 7 before 6, moves its fence past 6, and 6 is never counted.

    Args:
        settings: The Kafka connection, compression and drain budget.
        on_arrival: Called for every acknowledged batch of `publish`, before its callers continue, with the time at which
            the broker appended it (`shared.contract.bounds.arrival`) and the monotonic times before sending and after the
            acknowledgement. Not called if the broker gives no time.
    """

    def __init__(
        self, settings: CommonSettings, *, on_arrival: Callable[[int, float, float], None] | None = None
    ) -> None:
        self._settings, self._on_arrival = settings, on_arrival
        self._accumulator = Accumulator(self._send, seconds=_LINGER_SECONDS, many=_LINGER_RECORDS)
        self._producer: AIOKafkaProducer | None = None
        self._replacement: asyncio.Task[None] | None = None
        self._away = "Kafka has not answered yet"

    @property
    def started(self) -> bool:
        """Whether the producer is connected, that is, has reached the brokers."""
        return self._producer is not None

    @property
    def away(self) -> str | None:
        """Why there is no connection to the brokers, as far as known; None once there is one."""
        return self._away if self._producer is None else None

    async def start(self) -> None:
        """Connect.

        Raises:
            aiokafka.errors.KafkaConnectionError: no broker answers.
        """
        settings = self._settings
        compression.install()
        producer = AIOKafkaProducer(  # created here because it binds to the running event loop
            bootstrap_servers=settings.kafka_bootstrap_servers,
            **client_options(settings),
            acks="all",
            enable_idempotence=settings.kafka_idempotence,
            max_batch_size=_BATCH_BYTES,
            max_request_size=DLQ_MAX_RECORD_BYTES,
            # Timeout of one request, longer than a leader election. Without idempotence it also limits how long a send
            # may stay unacknowledged; with it aiokafka retries without limit, and only the caller can give up.
            request_timeout_ms=10_000,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._accumulator.forget_under_way()
        self._producer = producer

    async def start_when_reachable(self) -> None:
        """Connect, and retry while Kafka is away. Run it in the background to serve HTTP meanwhile.

        Raises:
            aiokafka.errors.KafkaError: the brokers answer with an error that is not transient.
        """
        failures = 0
        while self._producer is None:
            try:
                await self.start()
            except Exception as error:
                if not is_transient(error):
                    raise
                failures += 1
                wait = _BACKOFF.after(failures)
                reason = await why_unreachable(self._settings)
                if reason is not None:
                    self._away = f"Kafka is away: {reason}"
                log.warning("kafka_away", cause=type(error).__name__, reason=reason, wait=wait)
                await asyncio.sleep(wait)

    async def stop(self) -> None:
        """Send what is still buffered, for at most the drain budget, and close."""
        producer, self._producer = self._producer, None
        if self._replacement is not None:
            self._replacement.cancel()
        if producer is not None:
            await self._close(producer)

    async def _close(self, producer: AIOKafkaProducer) -> None:
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await producer.stop()
        except TimeoutError:
            # Kafka is away. These records were never acknowledged to their callers, who must repeat them.
            log.warning("producer_stopped_unsent", seconds=self._settings.drain_seconds)

    async def check(self) -> str | None:
        """Readiness check: the producer is connected and a broker answers."""
        if self._producer is None:
            return self._away
        if not await self._producer.client.force_metadata_update():
            return "no Kafka broker answers"
        return None

    @property
    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise KafkaConnectionError("Kafka has not answered yet")
        return self._producer

    async def publish(self, topic: str, record: Record) -> int | None:
        """Publish one record and wait until the brokers have acknowledged it.

        Returns:
            When the broker appended it, in milliseconds since 1970; see `shared.contract.bounds.arrival`.

        Raises:
            aiokafka.errors.MessageSizeTooLargeError: the record is larger than the topic accepts; nothing was sent.
            aiokafka.errors.KafkaError: not acknowledged; the record may or may not be on the topic.
        """
        require_fits(topic, record)
        partition = partition_of(record.key or b"", await self.partitions(topic))
        return await self._accumulator.publish(topic, partition, record)

    async def publish_in_order(self, topic: str, records: Iterable[Record]) -> None:
        """Publish records, each partition's in the given order, and wait until all are acknowledged.

        Raises:
            aiokafka.errors.MessageSizeTooLargeError: a record is larger than the topic accepts; nothing was sent.
            aiokafka.errors.KafkaError: a record was not acknowledged. In every partition the acknowledged records are then
                a prefix of those given, so publishing all of them again keeps the order of first appearances.
        """
        partitions = await self.partitions(topic)
        by_key: dict[bytes | None, list[Record]] = {}  # few keys, mostly petitions: each is hashed only once
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            require_fits(topic, record)
            home = by_key.get(record.key)
            if home is None:
                partition = partition_of(record.key or b"", partitions)
                home = by_key[record.key] = by_partition.setdefault(partition, [])
            home.append(record)
        results = await asyncio.gather(
            *(self._publish_partition(topic, partition, part) for partition, part in by_partition.items()),
            return_exceptions=True,  # no send may outlive this call: the caller may publish again at once
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def partitions(self, topic: str) -> int:
        """Return the number of partitions of `topic`."""
        return len(await self._connected.partitions_for(topic))

    async def _publish_partition(self, topic: str, partition: int, records: list[Record]) -> None:
        sent = 0
        while sent < len(records):
            batch = await self._send(topic, partition, records[sent:])
            try:
                await batch.acknowledged
            except KafkaError as error:
                raise batch.told(error) from error
            sent += batch.records
            await failpoint("producer.batch_acknowledged")

    async def _send(self, topic: str, partition: int, records: Sequence[Record]) -> UnderWay:
        """Give records to the sender, as many as fit into one batch; it retries until the brokers acknowledge them."""
        producer = self._connected
        batch = compression.new_batch(
            compression_of(topic, internal=self._settings.kafka_compression), most_bytes=_BATCH_BYTES
        )
        for record in records:
            if batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers) is None:
                break
        if not (taken := batch.record_count()):
            raise ValueError("an empty batch did not take one record")
        batch.close()
        told = partial(self._told, producer)
        sent = time.monotonic()
        try:
            acknowledged = await producer.send_batch(batch, topic, partition=partition)
        except KafkaError as error:
            raise told(error) from error
        return UnderWay(taken, acknowledged, told, partial(self._arrived, sent))

    def _arrived(self, sent: float, metadata: Any) -> int | None:
        arrived = arrival(metadata.timestamp, metadata.timestamp_type)
        if arrived is not None and self._on_arrival is not None:
            self._on_arrival(arrived, sent, time.monotonic())
        return arrived

    def _told(self, producer: AIOKafkaProducer, error: BaseException) -> BaseException:
        """Return the error for callers after a failure of `producer`, which is replaced if it can never send again."""
        return self._replace(producer, error) if isinstance(error, KafkaError) and _is_broken_by(error) else error

    def _replace(self, broken: AIOKafkaProducer, error: KafkaError) -> ProducerReplaced:
        if self._producer is broken:  # otherwise it was replaced already
            log.warning("producer_replaced", cause=type(error).__name__)
            self._producer = None
            self._replacement = asyncio.create_task(self._renew(broken))
        return ProducerReplaced(f"the producer cannot send any more: {type(error).__name__}")

    async def _renew(self, broken: AIOKafkaProducer) -> None:
        try:
            await self.start_when_reachable()
        except (
            KafkaError
        ) as error:  # the service stays not ready (`check`), and every send fails as while Kafka is away
            log.error("producer_not_replaced", cause=type(error).__name__)
        await self._close(broken)  # lets sends that still use it finish
