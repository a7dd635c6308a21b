"""Records that can be read and cannot be applied, on a real broker: they are found, set aside, and the rest is applied."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError
from asyncpg import CheckViolationError, RaiseError, UniqueViolationError
from asyncpg import DataError as PostgresDataError

from deploy.local.parts.kafka import KafkaBroker
from shared.kafka.consuming import holding
from shared.kafka.consuming.consumer import ConsumerLimits
from shared.runtime.failures import Collision, InvalidRecord, SetAside
from tests.support.consuming import (
    HEADERS,
    Batch,
    Worker,
    committed,
    new_topic,
    numbers,
    read,
    settings_for,
    write,
)
from tests.support.waiting import eventually


class Refusing:
    """A `process` that, like a database, refuses a batch with one of these numbers in it, whole."""

    def __init__(self, *refused: int, error: Exception) -> None:
        self.refused, self.error = set(refused), error
        self.applied: list[int] = []

    async def __call__(self, batch: Batch) -> None:
        if self.refused & {one.value for one in batch}:
            raise self.error
        self.applied += [one.value for one in batch]


class Naming:
    """A `process` that names the numbers that it cannot apply."""

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)

    async def __call__(self, batch: Batch) -> None:
        if found := {
            i: InvalidRecord("nobody_decided_it", f"number {i}")
            for i, one in enumerate(batch)
            if one.value in self.refused
        }:
            raise SetAside(found)


@pytest.mark.parametrize("error", [UniqueViolationError("x"), PostgresDataError("x"), RaiseError("x")], ids=repr)
async def test_what_cannot_be_applied_is_found_and_set_aside_and_the_rest_is_applied_in_order(
    kafka: KafkaBroker, error: Exception
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(30))
    refusing = Refusing(3, 4, 17, error=error)

    limits = ConsumerLimits(max_records=100)
    async with Worker(kafka, topic, process=refusing, limits=limits) as worker, committed(kafka, topic) as group:
        assert worker.shows("dead_letters_total", reason="cannot_be_applied")
        await group.reaches({0: 30})
        assert (worker.why_not_ready(), worker.metric("held")) == ("", 0)
        assert worker.metric("records_total") == 27
    assert worker.numbers == [number for number in range(30) if number not in (3, 4, 17)]
    assert not worker.bugs
    letters = await read(kafka, topic.dlq, 3)
    assert [letter.value for letter in letters] == [b"3", b"4", b"17"]
    for letter in letters:
        headers = dict(letter.headers)
        assert list(letter.headers[: len(HEADERS)]) == HEADERS
        assert headers["dlq_reason"] == b"cannot_be_applied"
        assert headers["dlq_exception"].startswith(f"cannot_be_applied: {type(error).__name__}, SQLSTATE ".encode())
    assert worker.metric("dead_letters_total", reason="cannot_be_applied") == 3
    assert worker.metric("splits_total") >= 3


async def test_what_process_names_is_set_aside_at_once_and_the_rest_is_given_to_it_again(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(10))

    async with Worker(kafka, topic, process=Naming(0, 4, 9)) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 10})
    rest = [1, 2, 3, 5, 6, 7, 8]
    assert worker.numbers == rest
    assert worker.attempts[-1] == rest, "in one piece"
    assert worker.metric("splits_total") == 0
    letters = await read(kafka, topic.dlq, 3)
    assert [letter.value for letter in letters] == [b"0", b"4", b"9"]
    assert dict(letters[1].headers)["dlq_exception"] == b"nobody_decided_it: number 4"
    assert worker.metric("dead_letters_total", reason="nobody_decided_it") == 3


async def test_a_batch_of_which_nothing_is_left_is_committed(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    async with Worker(kafka, topic, process=Naming(0, 1, 2)) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 3})
    assert worker.numbers == []
    assert len(await read(kafka, topic.dlq, 3)) == 3


async def test_a_name_that_is_not_in_the_batch_is_a_bug(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))

    async def names_another(_: Batch) -> None:
        raise SetAside({7: InvalidRecord("x", "x")})

    async with Worker(kafka, topic, process=names_another) as worker, committed(kafka, topic) as group:
        await eventually(lambda: bool(worker.bugs), "reported")
        assert await group.offsets() == {}


async def test_collisions_that_pass_are_a_rivals_and_nothing_is_set_aside(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(10))
    left = 3

    async def collides_three_times(_: Batch) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Collision("another one wrote there")

    async with Worker(kafka, topic, process=collides_three_times) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 10})
    assert worker.numbers == list(range(10))
    assert worker.metric("splits_total") == worker.metric("dead_letters_total", reason="cannot_be_applied") == 0
    assert worker.metric("holds_total", cause="Collision") == 3


async def test_collisions_that_do_not_pass_are_about_the_data(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "BACKOFF_MOST", 0.05)
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(20))
    refusing = Refusing(6, error=Collision("ledger_event is taken"))

    limits = ConsumerLimits(max_records=100)
    async with Worker(kafka, topic, process=refusing, limits=limits) as worker, committed(kafka, topic) as group:
        await group.reaches({0: 20})
    assert worker.numbers == [number for number in range(20) if number != 6]
    [letter] = await read(kafka, topic.dlq, 1)
    assert letter.value == b"6"
    assert dict(letter.headers)["dlq_exception"] == b"cannot_be_applied: Collision, ledger_event is taken"
    whole = [attempt for attempt in worker.attempts if len(attempt) == 20]
    alone = [attempt for attempt in worker.attempts if attempt == [6]]
    assert len(whole) == len(alone) == holding.MOST_COLLISIONS


async def test_a_constraint_that_refuses_everything_stops_consumption_with_its_position_held(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(20))
    refusing = Refusing(*range(20), error=CheckViolationError("x"))

    limits = ConsumerLimits(max_records=10, dlq_run=3)
    async with Worker(kafka, topic, process=refusing, limits=limits) as worker, committed(kafka, topic) as group:
        await eventually(lambda: "stopped: 4 records" in worker.why_not_ready(), "stopped")
        assert worker.metric("stopped") == 1
        assert await group.offsets() == {}, "not even what was set aside is passed"
    assert len(await read(kafka, topic.dlq, 3)) == 3

    async with Worker(kafka, topic) as following, committed(kafka, topic) as group:  # somebody has dropped it
        await group.reaches({0: 20})
    assert following.numbers == list(range(20))


async def test_what_is_set_aside_counts_for_the_ratio(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(40))
    every_third_is_good = [number for number in range(40) if number % 3]

    limits = ConsumerLimits(max_records=20, dlq_window=20, dlq_ratio_limit=0.5)
    process = Naming(*every_third_is_good)
    async with Worker(kafka, topic, process=process, limits=limits) as worker, committed(kafka, topic) as group:
        await eventually(lambda: "of the last 20 records" in worker.why_not_ready(), "stopped")
        assert await group.offsets() == {}
    assert worker.metric("dead_letters_total", reason="nobody_decided_it") == 0


async def test_while_it_looks_for_what_cannot_be_applied_it_is_held_and_a_stop_ends_it_promptly(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(10))
    go = asyncio.Event()
    parts = 0

    async def process(batch: Batch) -> None:
        nonlocal parts
        parts += 1
        if parts == 2:
            await go.wait()
        raise CheckViolationError("x")

    async with committed(kafka, topic) as group:
        async with Worker(kafka, topic, process=process, settings=settings_for(kafka, drain_seconds=300)) as worker:
            await eventually(lambda: parts == 2, "split")
            assert worker.why_not_ready() == "batch held: looking for what cannot be applied, CheckViolationError"
            assert worker.metric("held") == 1
            stopping = asyncio.create_task(worker.stop())
            await eventually(worker.consumer._holding.stopping.is_set, "asked to stop")
            go.set()
            await stopping
        assert parts == 2, "no other part is begun"
        assert await group.offsets() == {}


async def test_the_offset_does_not_pass_what_is_set_aside_before_its_letter_is_acknowledged(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(3))
    worker = Worker(kafka, topic, process=Naming(1))
    here = worker.publishes_nothing_yet(monkeypatch, KafkaConnectionError("away"))
    async with worker, committed(kafka, topic) as group:
        await eventually(lambda: worker.metric("holds_total", cause="KafkaConnectionError") >= 2, "letters held")
        assert await group.offsets() == {}
        assert worker.why_not_ready() == "dead letters held: KafkaConnectionError"
        here.set()
        await group.reaches({0: 3})
    assert worker.numbers == [0, 2]
