"""Helpers for the tests of the batch consumer: topics per test, a consumer inside a real FastStream broker, readers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream.kafka import KafkaBroker as FastStreamBroker
from prometheus_client import CollectorRegistry

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import DLQ_MAX_RECORD_BYTES, Topic
from shared.kafka.consuming.consumer import BatchConsumer, ConsumerLimits
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import NotACloudEvent, read_attributes
from shared.kafka.records.record import Headers, Record
from shared.runtime.failures import InvalidRecord
from shared.runtime.settings import CommonSettings
from shared.service import new_broker
from tests.support.waiting import eventually

NUMBER_TYPE = "groundswell.test.number.v1"
HEADERS: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", NUMBER_TYPE.encode())]


class Numbered(NamedTuple):
    """A record of these tests as read: its partition, offset and number."""

    partition: int
    offset: int
    value: int


Batch = Sequence[Numbered]


def decode_number(record: ConsumerRecord[Any, Any]) -> Numbered:
    """Read a record of these tests, an event with a number. It fails as the services' own readers do."""
    try:
        _, event_type = read_attributes(record.headers)
    except NotACloudEvent as error:
        raise InvalidRecord("not_a_cloud_event", str(error)) from None
    if event_type != NUMBER_TYPE:
        raise InvalidRecord("unknown_type", "header ce_type names no event of this topic")
    if record.value is None:
        raise InvalidRecord("no_value", "an event needs a value")
    try:
        return Numbered(record.partition, record.offset, int(json.loads(record.value)))
    except ValueError:
        raise InvalidRecord("schema", "(body): not a number") from None


def settings_for(kafka: KafkaBroker, **changes: Any) -> CommonSettings:
    """Settings of a service on `kafka`, with short times: a lost consumer is noticed after about a second."""
    return CommonSettings(
        **{
            "kafka_bootstrap_servers": kafka.bootstrap_servers,
            "kafka_idempotence": kafka.idempotence,
            "kafka_session_timeout_ms": 2_000,
            "drain_seconds": 5.0,
            **changes,
        }
    )


def unmade_topic() -> Topic:
    """The name of a topic of this test, not created yet."""
    return Topic(name=f"test.{uuid4().hex[:12]}.v1", key="none", holds="numbers", events=())


async def make_topic(kafka: KafkaBroker, topic: Topic, *, partitions: int = 1, **config: str) -> None:
    """Make a topic and its dead-letter topic. `config` names have underscores for dots."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in config.items()}
        limit = {"max.message.bytes": str(DLQ_MAX_RECORD_BYTES)}
        await admin.create_topics(
            [NewTopic(topic.name, partitions, 1, topic_configs=named), NewTopic(topic.dlq, 1, 1, topic_configs=limit)]
        )
    finally:
        await admin.close()


async def new_topic(kafka: KafkaBroker, *, partitions: int = 1, **config: str) -> Topic:
    """A topic of this test's own, with its dead-letter topic."""
    topic = unmade_topic()
    await make_topic(kafka, topic, partitions=partitions, **config)
    return topic


def group_of(topic: Topic) -> str:
    """The consumer group of the test that `topic` belongs to."""
    return f"{topic.name}.group"


@dataclass(frozen=True, slots=True)
class Raw:
    """A raw record to write."""

    value: bytes | None
    headers: Headers = field(default_factory=lambda: list(HEADERS))
    key: bytes | None = b"key"
    partition: int = 0


def numbers(count: int, *, partitions: int = 1, start: int = 0) -> list[Raw]:
    """Records with the numbers `start`, `start + 1`, …, over the partitions in turn."""
    return [Raw(str(n).encode(), partition=n % partitions) for n in range(start, start + count)]


async def write(kafka: KafkaBroker, topic: str, records: Sequence[Raw], *, one_by_one: bool = False) -> None:
    """Write `records`, in few batches or one batch each, and wait for the broker's acknowledgement."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", linger_ms=0 if one_by_one else 2)
    async with producer:
        sent = []
        for record in records:
            sent.append(
                await producer.send(
                    topic, record.value, key=record.key, partition=record.partition, headers=record.headers
                )
            )
            if one_by_one:
                await sent[-1]
        await asyncio.gather(*sent)


async def read(kafka: KafkaBroker, topic: str, count: int) -> list[ConsumerRecord[Any, Any]]:
    """The first `count` records of a topic, without a group."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    found: list[ConsumerRecord[Any, Any]] = []
    async with consumer, asyncio.timeout(60):
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found.extend(records)
    return found


class Committed:
    """The offsets that a group has committed, read from outside the group."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        self._consumer, self._partitions = consumer, partitions

    async def offsets(self) -> dict[int, int]:
        """The committed offset of every partition that has one."""
        found = {tp.partition: await self._consumer.committed(tp) for tp in self._partitions}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    async def reaches(self, wanted: dict[int, int], *, within: float = 15.0) -> None:
        """Wait until exactly these offsets are committed."""
        deadline = time.monotonic() + within
        while (found := await self.offsets()) != wanted:
            assert time.monotonic() < deadline, f"committed {found} after {within:g} s, not {wanted}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def committed(kafka: KafkaBroker, topic: Topic) -> AsyncIterator[Committed]:
    """Watch the committed offsets of the topic's group without being a member."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=group_of(topic), enable_auto_commit=False
    )
    await consumer.start()
    try:
        await consumer._client._wait_on_metadata(topic.name)
        partitions = [TopicPartition(topic.name, number) for number in consumer.partitions_for_topic(topic.name) or ()]
        consumer.assign(partitions)
        yield Committed(consumer, partitions)
    finally:
        await consumer.stop()


class Worker:
    """One instance of a service that reads numbers: a batch consumer inside a real FastStream broker.

    Attributes:
        seen: every record that was processed completely, in order, as (partition, offset, number).
        attempts: the numbers of every batch that was tried, including those that failed.
        bugs: what `on_bug` was called with.
    """

    def __init__(
        self,
        kafka: KafkaBroker,
        topic: Topic,
        *,
        process: Callable[[Batch], Awaitable[None]] | None = None,
        limits: ConsumerLimits | None = None,
        decode: Callable[[ConsumerRecord[Any, Any]], int] = decode_number,
        settings: CommonSettings | None = None,
        **hooks: Any,
    ) -> None:
        self.settings = settings or settings_for(kafka)
        self.seen: list[tuple[int, int, int]] = []
        self.attempts: list[list[int]] = []
        self.bugs: list[BaseException] = []
        self.registry = CollectorRegistry()
        self.producer = EventProducer(self.settings)
        self._own_process = process
        self.consumer: BatchConsumer[int] = BatchConsumer(
            topic=topic,
            group=group_of(topic),
            decode=decode,
            process=self._process,
            producer=self.producer,
            metrics=ConsumerMetrics(self.registry),
            settings=self.settings,
            on_bug=self.bugs.append,
            limits=limits or ConsumerLimits(max_records=10),
            **hooks,
        )
        self.broker: FastStreamBroker = new_broker(self.settings, self.registry, "test")
        self.consumer.subscribe(self.broker)

    def publishes_nothing_yet(self, monkeypatch: pytest.MonkeyPatch, away: Exception) -> asyncio.Event:
        """Let publishing raise `away` until the event that is returned is set."""
        publish, here = self.producer.publish_in_order, asyncio.Event()

        async def publish_in_order(topic: str, records: Iterable[Record]) -> None:
            if not here.is_set():
                raise away
            await publish(topic, records)

        monkeypatch.setattr(self.producer, "publish_in_order", publish_in_order)
        return here

    @property
    def numbers(self) -> list[int]:
        """The numbers processed to the end, in order."""
        return [number for _, _, number in self.seen]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.registry.get_sample_value(f"groundswell_consumer_{name}", labels) or 0.0

    def shows(self, name: str, **labels: str) -> bool:
        """Whether a metric is there at all."""
        return self.registry.get_sample_value(f"groundswell_consumer_{name}", labels) is not None

    async def _process(self, batch: Batch) -> None:
        self.attempts.append([received.value for received in batch])
        if self._own_process is not None:
            await self._own_process(batch)
        self.seen.extend(batch)

    def why_not_ready(self) -> str:
        """What the consumer's readiness check reports; empty when it is ready."""
        return self.consumer.why_not_consuming() or self.consumer._watch.away or ""

    async def processes(self, count: int) -> None:
        """Wait until so many records were processed."""
        await eventually(lambda: len(self.seen) >= count, f"{count} records processed")

    async def start(self) -> None:
        """Start as a service does: producer, then broker."""
        await self.producer.start()
        await self.broker.start()

    async def stop(self) -> None:
        """Stop as a service does: drain, then the broker, then the producer."""
        self.consumer.drain()
        await self.broker.stop()
        await self.producer.stop()

    async def __aenter__(self) -> "Worker":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
