"""The batch consumer's contract, on a real broker: invalid records, transient errors, bugs, and stops."""

import asyncio
import time
from typing import Any

import confluent_kafka
import pytest
from aiokafka.errors import KafkaConnectionError

from deploy.local.parts.kafka import KafkaBroker
from shared.kafka.consuming import holding, watch
from shared.kafka.consuming.consumer import ConsumerLimits
from tests.support.consuming import (
    HEADERS,
    Batch,
    Numbered,
    Raw,
    Worker,
    committed,
    decode_number,
    new_topic,
    numbers,
    read,
    settings_for,
    write,
)
from tests.support.waiting import eventually

POISON = {
    "not JSON": (Raw(b"{not json"), "schema"),
    "no headers": (Raw(b"1", headers=[]), "not_a_cloud_event"),
    "a header that is not UTF-8": (Raw(b"1", headers=[*HEADERS[:2], ("ce_type", b"\xff\xfe")]), "not_a_cloud_event"),
    "a header without a value": (Raw(b"1", headers=[*HEADERS[:2], ("ce_type", None)]), "not_a_cloud_event"),  # type: ignore[list-item]
    "an unknown type": (Raw(b"1", headers=[*HEADERS[:2], ("ce_type", b"groundswell.other.v1")]), "unknown_type"),
    "no value": (Raw(None), "no_value"),
    "no key": (Raw(b"?", key=None), "schema"),
}


class Away:
    """Something that `process` needs, and that can be away."""

    def __init__(self) -> None:
        self.here = asyncio.Event()

    async def __call__(self, _: Batch) -> None:
        if not self.here.is_set():
            raise ConnectionError("away")


class Stuck:
    """A `process` that takes until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, _: Batch) -> None:
        self.begun.set()
        await self.go.wait()


# --------------------------------------------------------------------------------------------------------------- invalid


async def test_poison_in_the_middle_of_a_batch_goes_to_the_dead_letters_and_its_neighbours_are_processed(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    mixed: list[Raw] = []
    for good, (bad, _) in zip(numbers(len(POISON)), POISON.values(), strict=True):
        mixed += [good, bad]
    await write(kafka, topic.name, mixed)

    async with Worker(kafka, topic, limits=ConsumerLimits(max_records=100)) as worker:
        async with committed(kafka, topic) as group:
            await group.reaches({0: len(mixed)})
        letters = await read(kafka, topic.dlq, len(POISON))

    assert worker.numbers == list(range(len(POISON)))
    assert not worker.bugs
    assert len(letters) == len(POISON)
    by_place = {dict(letter.headers)["dlq_source_offset"]: letter for letter in letters}
    for place, (bad, reason) in enumerate(POISON.values()):
        letter = by_place[str(2 * place + 1).encode()]
        assert (letter.key, letter.value) == (bad.key, bad.value)
        assert list(letter.headers[: len(bad.headers)]) == bad.headers
        headers = dict(letter.headers)
        assert headers["dlq_reason"] == reason.encode()
        assert headers["dlq_exception"].startswith(reason.encode() + b": ")
        assert headers["dlq_source_topic"] == topic.name.encode()
        assert headers["dlq_source_partition"] == b"0"
        assert headers["dlq_time"]
        assert worker.metric("dead_letters_total", reason=reason) >= 1


async def test_a_record_that_unpacks_to_more_than_any_topic_takes_leaves_a_letter_and_stops_nothing(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    outside = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "gzip", "message.max.bytes": 20_000_000}
    )
    outside.produce(topic.name, value=b"x" * 5_000_000, key=b"key", headers=HEADERS)
    assert await asyncio.to_thread(outside.flush, 10) == 0
    await write(kafka, topic.name, numbers(3))

    async with Worker(kafka, topic) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 4})

    [letter] = await read(kafka, topic.dlq, 1)
    headers = dict(letter.headers)
    assert (headers["dlq_reason"], headers["dlq_source_offset"]) == (b"schema", b"0")
    assert b"5000000 bytes" in headers["dlq_omitted"]
    assert worker.numbers == [0, 1, 2]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_records_in_every_compression_that_producers_use_are_read(kafka: KafkaBroker, codec: str) -> None:
    topic = await new_topic(kafka)
    outside = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers, "compression.type": codec})
    for number in range(200):
        outside.produce(topic.name, value=str(number).encode(), key=b"key", headers=HEADERS)
    assert await asyncio.to_thread(outside.flush, 10) == 0

    async with Worker(kafka, topic, limits=ConsumerLimits(max_records=1000)) as worker:
        await worker.processes(200)
    assert worker.numbers == list(range(200))


async def test_the_offset_does_not_pass_a_dead_letter_before_it_is_acknowledged(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, [*numbers(2), Raw(b"poison")])
    worker = Worker(kafka, topic)
    here = worker.publishes_nothing_yet(monkeypatch, KafkaConnectionError("away"))
    async with worker, committed(kafka, topic) as group:
        await eventually(lambda: worker.metric("holds_total", cause="KafkaConnectionError") >= 2, "letters held")
        assert await group.offsets() == {}
        assert worker.why_not_ready() == "dead letters held: KafkaConnectionError"
        here.set()
        await group.reaches({0: 3})
        assert worker.why_not_ready() == ""
    assert len(await read(kafka, topic.dlq, 1)) == 1


async def test_a_run_of_invalid_records_stops_consumption_with_its_position_held(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, [*numbers(10), *[Raw(b"poison")] * 30, *numbers(10, start=10)])
    limits = ConsumerLimits(max_records=10, dlq_window=20, dlq_ratio_limit=0.5)

    async with Worker(kafka, topic, limits=limits) as worker, committed(kafka, topic) as group:
        await eventually(lambda: "could not be read" in worker.why_not_ready(), "stopped")
        await group.reaches({0: 20})  # ten of twenty: not more than half
        assert worker.metric("stopped") == 1
        assert not worker.bugs, "the process goes on, to be looked at"
        await eventually(lambda: bool(worker.consumer._consumer.paused()), "it does not read on for nothing")
        assert await group.offsets() == {0: 20}
    assert worker.numbers == list(range(10))
    assert len(await read(kafka, topic.dlq, 10)) == 10

    tolerant = ConsumerLimits(max_records=10, dlq_window=20, dlq_ratio_limit=1.0)
    async with Worker(kafka, topic, limits=tolerant) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 50})
    assert worker.numbers == list(range(10, 20))
    assert len(await read(kafka, topic.dlq, 30)) == 30


# ------------------------------------------------------------------------------------------------------------- transient


async def test_what_passes_holds_the_batch_which_is_tried_again_whole_and_in_order_before_any_later_one(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(30))
    away = Away()

    async with Worker(kafka, topic, process=away) as worker, committed(kafka, topic) as group:
        await eventually(lambda: len(worker.attempts) >= 3, "tried three times")
        assert worker.attempts == [list(range(10))] * len(worker.attempts)
        assert worker.why_not_ready() == "batch held: ConnectionError"
        assert worker.metric("held") == 1
        assert await group.offsets() == {}
        away.here.set()
        await group.reaches({0: 30})
        assert (worker.why_not_ready(), worker.metric("held")) == ("", 0)
    assert worker.numbers == list(range(30))
    assert not worker.bugs


async def test_a_step_that_waits_without_an_error_is_told_too(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_SLOW_SECONDS", 0.2)
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    stuck = Stuck()

    async with Worker(kafka, topic, process=stuck) as worker:
        await stuck.begun.wait()
        assert worker.why_not_ready() == ""
        await eventually(lambda: worker.why_not_ready() == "batch held: not done within 0.2 s", "told")
        stuck.go.set()
        await eventually(lambda: worker.why_not_ready() == "", "ready again")


async def test_lag_counts_what_is_not_committed_also_while_the_first_batch_is_held(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_MEASURE_SECONDS", 0.1)
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(5), one_by_one=True)
    away = Away()

    async with Worker(kafka, topic, process=away) as worker:
        await eventually(lambda: worker.metric("lag_records", partition="0") == 5, "lag of the held batch")
        await write(kafka, topic.name, numbers(7), one_by_one=True)
        await eventually(lambda: worker.metric("lag_records", partition="0") == 12, "lag grows while it is held")
        away.here.set()
        await worker.processes(12)
        await eventually(lambda: worker.metric("lag_records", partition="0") == 0, "no lag")


async def test_records_that_wait_and_are_not_delivered_make_the_consumer_not_ready(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_MEASURE_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_STALLED_SECONDS", 0.3)
    topic = await new_topic(kafka)
    async with Worker(kafka, topic) as worker:
        client = worker.consumer._consumer
        client.pause(*client.assignment())  # as a client whose fetching has died
        await write(kafka, topic.name, numbers(3))
        await eventually(lambda: "records wait and are not delivered" in worker.why_not_ready(), "stalled")
        client.resume(*client.assignment())
        await worker.processes(3)
        await eventually(lambda: worker.why_not_ready() == "", "ready again")


@pytest.mark.parametrize("kept_alive", [True, False])
async def test_a_batch_held_longer_than_the_poll_interval_stays_in_the_group_because_it_is_kept_alive(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, *, kept_alive: bool
) -> None:
    monkeypatch.setattr(watch, "_KEEPALIVE_SECONDS", 0.1 if kept_alive else 60)
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    away = Away()
    worker = Worker(kafka, topic, process=away)
    worker.consumer._subscriber._subscriber._connection_args["max_poll_interval_ms"] = 800  # five minutes, without this

    async with worker, committed(kafka, topic) as group:
        await eventually(lambda: len(worker.attempts) >= 1, "held")
        held_at = time.monotonic()
        coordinator = worker.consumer._consumer._coordinator
        member, in_group = coordinator.member_id, True
        while in_group and time.monotonic() - held_at < 2.0:
            await asyncio.sleep(0.05)
            in_group = coordinator.member_id == member
        assert in_group is kept_alive
        away.here.set()
        await group.reaches({0: 3})
    assert set(worker.numbers) == {0, 1, 2}
    assert not worker.bugs


# ------------------------------------------------------------------------------------------------------------------ bugs


async def test_a_bug_commits_nothing_and_is_reported_and_the_next_process_gets_the_same_records(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(25))

    async def fails_on_the_second_batch(batch: Batch) -> None:
        if batch[0].value == 10:
            raise KeyError("a bug")

    async with Worker(kafka, topic, process=fails_on_the_second_batch) as worker, committed(kafka, topic) as group:
        await eventually(lambda: bool(worker.bugs), "reported")
        assert worker.why_not_ready() == "stopped by a bug: KeyError"
        await write(kafka, topic.name, numbers(5, start=25))
        await eventually(lambda: bool(worker.consumer._consumer.paused()), "later batches are left alone")
        assert await group.offsets() == {0: 10}
        assert len(worker.bugs) == worker.metric("bugs_total") == 1
    assert worker.numbers == list(range(10))

    async with Worker(kafka, topic) as following, committed(kafka, topic) as group:
        await group.reaches({0: 30})
    assert following.numbers == list(range(10, 30))


async def test_a_record_that_makes_its_reader_fail_unexpectedly_is_set_aside_and_the_bug_is_told_without_content(
    kafka: KafkaBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, [*numbers(2), Raw(b"signer@mail.example"), *numbers(2, start=3)])

    def decode(record: Any) -> Numbered:
        if b"@" in record.value:
            raise TypeError(f"no rule for {record.value}")
        return decode_number(record)

    async with Worker(kafka, topic, decode=decode) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 5})
        assert worker.why_not_ready() == ""
    assert worker.numbers == [0, 1, 3, 4]
    assert not worker.bugs, "the process goes on"
    assert worker.metric("bugs_total") == worker.metric("dead_letters_total", reason="cannot_be_read") == 1
    [letter] = await read(kafka, topic.dlq, 1)
    assert letter.value == b"signer@mail.example"
    assert dict(letter.headers)["dlq_exception"] == b"cannot_be_read: TypeError"
    said = capsys.readouterr().out
    assert "in decode" in said
    assert "signer@mail.example" not in said


async def test_a_reader_that_fails_for_every_record_stops_consumption_before_the_topic_is_drained(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(40))

    def decode(_: Any) -> Numbered:
        raise TypeError("a bug")

    limits = ConsumerLimits(max_records=10, dlq_run=25)
    async with Worker(kafka, topic, decode=decode, limits=limits) as worker, committed(kafka, topic) as group:
        await eventually(lambda: "in a row could not be read or applied" in worker.why_not_ready(), "stopped")
        await group.reaches({0: 20})
        assert worker.metric("stopped") == 1
    assert worker.metric("dead_letters_total", reason="cannot_be_read") == 20


async def test_a_bug_in_a_rebalance_hook_is_not_swallowed(kafka: KafkaBroker) -> None:
    async def on_assigned(_: set[int]) -> None:
        raise KeyError("a bug")

    async with Worker(kafka, await new_topic(kafka), on_assigned=on_assigned) as worker:
        await eventually(lambda: bool(worker.bugs), "reported")


# ------------------------------------------------------------------------------------------------------------------ stop


async def test_a_stop_during_a_held_batch_ends_promptly_and_leaves_it_uncommitted(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(10))
    async with committed(kafka, topic) as group:
        async with Worker(kafka, topic, process=Away(), settings=settings_for(kafka, drain_seconds=300)) as worker:
            await eventually(lambda: len(worker.attempts) >= 4, "held, with a long backoff by now")
            asked = time.monotonic()
        assert time.monotonic() - asked < 60, "far less than the drain budget"
        assert worker.metric("batches_abandoned_total") == 1
        assert await group.offsets() == {}


async def test_a_stop_lets_the_batch_in_hand_finish_and_commits_it(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(20))
    stuck = Stuck()
    worker = Worker(kafka, topic, process=stuck)
    await worker.start()
    await stuck.begun.wait()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.sleep(0.2)
    stuck.go.set()
    await stopping

    assert worker.numbers == list(range(10)), "and no other batch is begun"
    async with committed(kafka, topic) as group:
        assert await group.offsets() == {0: 10}


async def test_a_stop_gives_up_a_batch_that_outlasts_the_drain_budget(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(10))
    stuck = Stuck()
    worker = Worker(kafka, topic, process=stuck, settings=settings_for(kafka, drain_seconds=0.3))
    await worker.start()
    await stuck.begun.wait()
    asked = time.monotonic()
    await worker.stop()

    assert time.monotonic() - asked < 60
    assert not worker.seen
    assert worker.metric("batches_abandoned_total") == 1
    async with committed(kafka, topic) as group:
        assert await group.offsets() == {}
