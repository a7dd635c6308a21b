"""Records that the Kafka client itself cannot unpack, on a real broker: they are set aside, reported, and block nothing."""

from dataclasses import replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from prometheus_client import CollectorRegistry

from deploy.local.parts.kafka import KafkaBroker
from services.tally.reading import live_feed
from services.tally.reading.live import LiveHub
from services.tally.reading.live_feed import LiveFeed
from services.tally.reading.metrics import ReadMetrics
from shared.contract.catalogue import Catalogue
from shared.contract.events import TallyUpdated
from shared.contract.topics import PETITIONS_CHANGED, TALLIES_UPDATED, Topic
from shared.kafka.broadcasting import catalogue_feed
from shared.kafka.consuming import watch
from shared.kafka.consuming.consumer import ConsumerLimits
from shared.kafka.producing.partitioner import partition_of
from shared.service import new_broker
from tests.contract.golden_events import EXAMPLES
from tests.integration.shared.test_catalogue_feed import changed, reading
from tests.support.consuming import (
    HEADERS,
    Raw,
    Worker,
    committed,
    make_topic,
    new_topic,
    numbers,
    read,
    settings_for,
    unmade_topic,
    write,
)
from tests.support.packing import (
    STRANGE,
    Change,
    bad_checksum,
    negative_length,
    rubbish,
    spoilt,
    strange_name,
    unknown_codec,
    write_changed,
)
from tests.support.waiting import eventually
from tests.unit.shared.contract.petitions import petition


@pytest.fixture(autouse=True)
def measured_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_MEASURE_SECONDS", 0.1)


def strange(value: bytes) -> Raw:
    return Raw(value, headers=[*HEADERS, STRANGE])


@pytest.mark.parametrize("most", [2, 100])
async def test_a_record_that_the_client_itself_cannot_unpack_is_set_aside_and_its_neighbours_are_processed(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    mixed = [*numbers(2, start=3), strange(b"5"), *numbers(2, start=6)]
    await write_changed(kafka, topic.name, mixed, strange_name, monkeypatch)
    await write(kafka, topic.name, numbers(3, start=8))

    async with (
        Worker(kafka, topic, limits=ConsumerLimits(max_records=most)) as worker,
        committed(kafka, topic) as group,
    ):
        await group.reaches({0: 11})
        assert worker.numbers == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
        [letter] = await read(kafka, topic.dlq, 1)
        assert worker.metric("dead_letters_total", reason="unreadable_headers") == 1
        assert worker.metric("unreadable_batches_total") == 0
        await eventually(lambda: worker.metric("lag_records", partition="0") == 0, "no lag")
        assert worker.why_not_ready() == ""

    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"key", b"5")
    assert list(letter.headers[: len(HEADERS)]) == HEADERS
    assert (headers["dlq_reason"], headers["dlq_source_offset"]) == (b"unreadable_headers", b"5")
    assert b"\xff" * len(STRANGE[0]) in headers["dlq_raw_headers"]
    assert not worker.bugs


SPOILT: dict[str, Change] = {
    "checksum": bad_checksum,
    "codec": unknown_codec,
    "gzip": rubbish(1),
    "snappy": rubbish(2),
    "lz4": rubbish(3),
    "zstd": rubbish(4),
}


@pytest.mark.usefixtures("needs_apache")
@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT)
async def test_a_batch_that_cannot_be_read_at_all_is_set_aside_as_a_whole_and_reading_goes_on(
    kafka: KafkaBroker, change: Change
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    await write(kafka, topic.name, numbers(3, start=3))
    await write(kafka, topic.name, numbers(3, start=6))

    with spoilt(kafka, topic.name, 1, change):
        async with Worker(kafka, topic) as worker, committed(kafka, topic) as group:
            await group.reaches({0: 9})
            assert worker.numbers == [0, 1, 2, 6, 7, 8]
            assert worker.metric("unreadable_batches_total") == 1
            [letter] = await read(kafka, topic.dlq, 1)
        async with Worker(kafka, topic) as following:
            await write(kafka, topic.name, numbers(1, start=9))
            await following.processes(1)
        assert following.numbers == [9], "it is not met again"
        assert following.metric("unreadable_batches_total") == 0

    headers = dict(letter.headers)
    assert headers["dlq_reason"] == b"unreadable_batch"
    assert (headers["dlq_source_first_offset"], headers["dlq_source_offset"]) == (b"3", b"5")
    assert letter.value is not None
    assert b"ce_type" in letter.value, "the batch as it is stored"


@pytest.mark.usefixtures("needs_apache")
async def test_a_batch_that_cannot_be_read_at_the_end_of_a_partition_leaves_no_lag(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    with spoilt(kafka, topic.name, 0, bad_checksum):
        async with Worker(kafka, topic) as worker, committed(kafka, topic) as group:
            await group.reaches({0: 3})
            await eventually(lambda: worker.metric("lag_records", partition="0") == 0, "no lag")
            assert worker.why_not_ready() == ""
    assert worker.numbers == []


async def test_other_partitions_lose_nothing_to_one_whose_batches_cannot_be_unpacked(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await new_topic(kafka, partitions=3)
    for number in range(30):
        await write_changed(
            kafka,
            topic.name,
            [strange(b"-1"), *(Raw(str(number).encode(), partition=1 + number % 2) for _ in range(1))],
            lambda batch: strange_name(batch) if STRANGE[0].encode() in batch else None,
            monkeypatch,
        )
    async with Worker(kafka, topic) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 30, 1: 15, 2: 15})
    assert sorted(worker.numbers) == list(range(30))
    assert worker.metric("dead_letters_total", reason="unreadable_headers") == 30


@pytest.mark.usefixtures("needs_apache")
async def test_a_length_below_zero_in_a_records_headers_costs_no_other_record(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, [*numbers(1), strange(b"1"), *numbers(1, start=2)])
    with spoilt(kafka, topic.name, 0, negative_length):
        async with Worker(kafka, topic) as worker, committed(kafka, topic) as group:
            await group.reaches({0: 3})
        assert worker.numbers == [0, 2]
        assert worker.metric("dead_letters_total", reason="unreadable_headers") == 1


async def test_dead_letters_of_what_cannot_be_unpacked_are_held_until_kafka_has_them(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await new_topic(kafka)
    await write_changed(kafka, topic.name, [strange(b"0")], strange_name, monkeypatch)
    worker = Worker(kafka, topic)
    here = worker.publishes_nothing_yet(monkeypatch, ConnectionError("away"))
    async with worker, committed(kafka, topic) as group:
        await eventually(lambda: worker.metric("holds_total", cause="ConnectionError") >= 1, "held")
        assert await group.offsets() == {}
        here.set()
        await group.reaches({0: 1})


async def test_the_letters_can_be_read_by_any_client(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await new_topic(kafka)
    await write_changed(kafka, topic.name, [strange(b"0")], strange_name, monkeypatch)
    async with Worker(kafka, topic), committed(kafka, topic) as group:
        await group.reaches({0: 1})
    with monkeypatch.context() as plain:
        from aiokafka.consumer import fetcher
        from aiokafka.record.memory_records import MemoryRecords

        from shared.kafka.fetching.unpacking import _PartitionRecords

        plain.setattr(fetcher, "MemoryRecords", MemoryRecords)
        plain.setattr(fetcher, "PartitionRecords", _PartitionRecords)
        [letter] = await read(kafka, topic.dlq, 1)
    assert letter.value == b"0"


# ----------------------------------------------------------------------------------------------- readers without a group


@pytest.fixture
async def petitions(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> Topic:
    """A topic of petitions of the test's own."""
    topic = replace(PETITIONS_CHANGED, name=unmade_topic().name)
    await make_topic(kafka, topic, partitions=1)
    monkeypatch.setattr(catalogue_feed, "PETITIONS_CHANGED", topic)
    return topic


def of_petition(title: str, **changes: Any) -> Raw:
    record = changed(petition(title=title))
    return Raw(record.value, headers=record.headers, key=record.key, **changes)


@pytest.mark.usefixtures("needs_apache")
@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_batch_that_cannot_be_read_keeps_no_service_from_starting(
    kafka: KafkaBroker, petitions: Topic, number: int
) -> None:
    for title in ("First", "Second", "Third"):
        await write(kafka, petitions.name, [of_petition(title)])
    with spoilt(kafka, petitions.name, number, bad_checksum):
        async with reading(kafka) as reader:
            await eventually(reader.ready, "ready")
            assert reader.titles() == {"save-the-harbour": "Second" if number == 2 else "Third"}
            assert reader.metric("unreadable_batches_total") == 1
            await write(kafka, petitions.name, [of_petition("Fourth")])
            await reader.feed.catch_up()
            assert reader.titles() == {"save-the-harbour": "Fourth"}
            assert not reader.bugs


@pytest.mark.usefixtures("needs_apache")
async def test_offsets_without_a_record_at_the_end_do_not_count_as_unread(kafka: KafkaBroker, petitions: Topic) -> None:
    """The end of a transaction takes an offset, and no reader is given a record for it."""
    async with reading(kafka) as early:
        outside = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=petitions.name)
        async with outside, outside.transaction():
            record = of_petition("In a transaction")
            await outside.send(petitions.name, record.value, key=record.key, headers=record.headers)
        await early.feed.catch_up()
        assert list(early.titles().values()) == ["In a transaction"]
        async with reading(kafka) as late:
            await eventually(late.ready, "ready")
            await late.feed.catch_up()
            assert late.titles() == early.titles()


@pytest.mark.usefixtures("needs_apache")
async def test_when_partitions_are_added_the_petitions_own_one_is_another(kafka: KafkaBroker, petitions: Topic) -> None:
    await write(kafka, petitions.name, [of_petition("Before")])
    async with reading(kafka) as reader:
        await reader.feed.catch_up()
        count = next(n for n in range(2, 9) if partition_of(b"save-the-harbour", n))
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.create_partitions({petitions.name: NewPartitions(count)})
        await admin.close()
        home = partition_of(b"save-the-harbour", count)
        await write(kafka, petitions.name, [of_petition("After", partition=home)])
        await write(kafka, petitions.name, [of_petition("By a producer that did not know")])

        async def both_read() -> bool:
            consumer = reader.feed._reader.consumer
            assert consumer is not None
            await consumer._client.force_metadata_update()  # instead of half a minute
            await reader.feed.catch_up()
            return len(consumer.assignment()) == count and reader.titles() == {"save-the-harbour": "After"}

        await eventually(both_read, "the record at home counts", every=0.3)


@pytest.mark.usefixtures("needs_apache")
async def test_live_counts_go_on_past_a_batch_that_cannot_be_read(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = replace(TALLIES_UPDATED, name=unmade_topic().name)
    await make_topic(kafka, topic, partitions=1)
    monkeypatch.setattr(live_feed, "TALLIES_UPDATED", topic)
    registry = CollectorRegistry()
    metrics = ReadMetrics(registry)
    hub, bugs = LiveHub(Catalogue(), metrics), list[BaseException]()
    feed = LiveFeed(hub, metrics, on_bug=bugs.append, on_overtaken=lambda *_: None)
    broker = new_broker(settings_for(kafka), registry, "test")
    feed.subscribe(broker)
    golden = next(example for example in EXAMPLES if isinstance(example, TallyUpdated))
    for revision in (1, 2, 3):
        snapshot = golden.model_copy(update={"revision": revision})
        await write(kafka, topic.name, [Raw(snapshot.model_dump_json().encode(), key=snapshot.petition_id.encode())])
    with spoilt(kafka, topic.name, 1, bad_checksum):
        await broker.start()
        try:
            before = golden.model_copy(update={"revision": 0})
            await eventually(lambda: hub.newest(before).revision == 3, "followed")
        finally:
            await broker.stop()
    assert registry.get_sample_value("groundswell_tally_read_unreadable_batches_total") == 1
    assert not bugs
