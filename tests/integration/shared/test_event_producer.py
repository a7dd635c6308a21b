"""The producer on a real broker: acknowledged, in order, and able to go on when the brokers refuse it."""

import asyncio
import os
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import MAX_RECORD_BYTES, Topic
from shared.kafka.producing import producer as producer_module
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.producing.producer import EventProducer, ProducerReplaced
from shared.kafka.records.record import Record
from shared.runtime.failures import is_transient
from tests.support.consuming import new_topic, read, settings_for
from tests.support.waiting import eventually

PARTITIONS = 3
KEYS = [f"petition-{number}".encode() for number in range(7)]


def records(count: int) -> list[Record]:
    """Records of seven petitions in turn, numbered."""
    return [Record(KEYS[n % len(KEYS)], str(n).encode(), [("ce_id", str(n).encode())]) for n in range(count)]


def by_partition(found: list[ConsumerRecord[Any, Any]]) -> dict[int, list[int]]:
    """The numbers in each partition, in their order there."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for record in found:
        numbers[record.partition].append(int(record.value or b""))
    return numbers


def as_given(given: list[Record], partitions: int = PARTITIONS) -> dict[int, list[int]]:
    """The same, of what was to be published."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for record in given:
        numbers[partition_of(record.key or b"", partitions)].append(int(record.value or b""))
    return numbers


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of some ten records, so that a few hundred records are many batches."""
    monkeypatch.setattr(producer_module, "_BATCH_BYTES", 500)


async def test_what_is_published_in_order_is_in_that_order_in_every_partition(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka, partitions=PARTITIONS)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    given = records(600)
    await producer.publish_in_order(topic.name, given)
    found = await read(kafka, topic.name, len(given))
    await producer.stop()

    assert by_partition(found) == as_given(given)
    assert {record.value: (record.key, list(record.headers)) for record in found} == {
        record.value: (record.key, record.headers) for record in given
    }


async def test_keys_go_where_other_clients_send_them(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka, partitions=PARTITIONS)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    await producer.publish_in_order(topic.name, records(len(KEYS)))
    for record in records(len(KEYS)):
        await producer.publish(topic.name, record)
    await producer.stop()
    outside = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for key in KEYS:
        outside.produce(topic.name, key=key, value=b"0")
    assert await asyncio.to_thread(outside.flush, 10) == 0

    places: dict[bytes | None, set[int]] = defaultdict(set)
    for found in await read(kafka, topic.name, 3 * len(KEYS)):
        places[found.key].add(found.partition)
    assert places == {key: {partition_of(key, PARTITIONS)} for key in KEYS}


@pytest.mark.parametrize("outcome", ["lost", "written but not acknowledged"])
async def test_when_a_send_fails_the_rest_of_its_partition_is_not_sent_and_publishing_again_keeps_the_order(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    topic = await new_topic(kafka, partitions=PARTITIONS)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    client = producer._connected
    send_batch, before_failure = client.send_batch, 0

    async def fails_once(*arguments: Any, **options: Any) -> Any:
        nonlocal before_failure
        before_failure -= 1
        if before_failure != 0:
            return await send_batch(*arguments, **options)
        if outcome != "lost":
            await (await send_batch(*arguments, **options))
        raise KafkaTimeoutError("not acknowledged")

    monkeypatch.setattr(client, "send_batch", fails_once)
    given = records(400)
    wanted = as_given(given)
    for round_, place in enumerate((5, 12, 20)):
        before_failure = place
        with pytest.raises(KafkaTimeoutError):
            await producer.publish_in_order(topic.name, given)
        found = by_partition(await read_all(kafka, topic))
        first = {partition: list(dict.fromkeys(numbers)) for partition, numbers in found.items()}
        assert all(numbers == wanted[partition][: len(numbers)] for partition, numbers in first.items()), round_
        assert first != wanted or round_ > 0, "one partition was cut short"
    await producer.publish_in_order(topic.name, given)
    await producer.stop()

    found = by_partition(await read_all(kafka, topic))
    assert {partition: list(dict.fromkeys(numbers)) for partition, numbers in found.items()} == wanted


async def read_all(kafka: KafkaBroker, topic: Topic) -> list[ConsumerRecord[Any, Any]]:
    """All that is on a topic now: up to a record that is written to the end of every partition."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        mark = uuid4().bytes
        for partition in range(PARTITIONS):
            await producer.send_and_wait(topic.name, b"0", key=mark, partition=partition)
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    found: list[ConsumerRecord[Any, Any]] = []
    async with consumer, asyncio.timeout(60):
        while sum(record.key == mark for record in found) < PARTITIONS:
            for some in (await consumer.getmany(timeout_ms=100)).values():
                found.extend(some)
    return [record for record in found if record.key in KEYS]


async def test_a_record_that_no_topic_takes_is_refused_before_anything_is_sent(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    large = Record(b"key", b"x" * MAX_RECORD_BYTES, [])
    with pytest.raises(MessageSizeTooLargeError):
        await producer.publish(topic.name, large)
    with pytest.raises(MessageSizeTooLargeError):
        await producer.publish_in_order(topic.name, [Record(b"key", b"1", []), large])
    await producer.publish(topic.name, Record(b"key", b"2", []))
    assert [found.value for found in await read(kafka, topic.name, 1)] == [b"2"]
    await producer.stop()


@pytest.mark.usefixtures("needs_apache")
async def test_a_producer_that_the_brokers_refuse_for_good_is_replaced(kafka: KafkaBroker) -> None:
    """aiokafka numbers a batch before the broker refuses it; from then on every batch of the partition is out of order."""
    topic = await new_topic(kafka, max_message_bytes="2000")
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    await producer.publish(topic.name, Record(b"key", b"1", []))
    with pytest.raises(MessageSizeTooLargeError):
        await producer.publish(topic.name, Record(b"key", os.urandom(5000), []))  # as large when compressed

    with pytest.raises(ProducerReplaced) as failure:
        await producer.publish(topic.name, Record(b"key", b"2", []))
    assert is_transient(failure.value), "trying again helps"
    await eventually(lambda: producer.started, "replaced")
    await producer.publish(topic.name, Record(b"key", b"2", []))
    await producer.publish_in_order(topic.name, [Record(b"key", b"3", []), Record(b"key", b"4", [])])
    assert [found.value for found in await read(kafka, topic.name, 4)] == [b"1", b"2", b"3", b"4"]
    await producer.stop()


async def test_a_producer_whose_sending_task_has_died_is_replaced(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await new_topic(kafka)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    await producer.publish(topic.name, Record(b"key", b"1", []))

    async def dies(*_: Any) -> None:
        raise RuntimeError("something that aiokafka does not foresee")

    sender = producer._connected._sender
    with monkeypatch.context() as broken:
        broken.setattr(sender, "_send_produce_req", dies)
        with pytest.raises(ProducerReplaced) as failure:
            await producer.publish(topic.name, Record(b"key", b"2", []))
    assert is_transient(failure.value)
    await eventually(lambda: producer.started, "replaced")
    await producer.publish_in_order(topic.name, [Record(b"key", b"2", [])])
    assert [found.value for found in await read(kafka, topic.name, 2)] == [b"1", b"2"]
    await producer.stop()


async def test_a_producer_that_starts_while_kafka_is_away_connects_when_it_is_there(tmp_path: Path) -> None:
    broker = EmbeddedKafka(log_dir=tmp_path)
    producer = EventProducer(settings_for(broker))
    with pytest.raises(KafkaError) as failure:
        await producer.start()
    assert is_transient(failure.value)
    starting = asyncio.create_task(producer.start_when_reachable())
    await asyncio.sleep(0.1)
    assert not producer.started
    async with broker:
        await starting
        assert await producer.check() is None
        topic = await new_topic(broker)
        await producer.publish(topic.name, Record(b"key", b"1", []))
        await broker.kill()
        await eventually(lambda: _says(producer, "no Kafka broker answers"), "notices that it is away")
    await producer.stop()


async def _says(producer: EventProducer, what: str) -> bool:
    return await producer.check() == what
