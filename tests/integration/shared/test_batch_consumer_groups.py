"""The batch consumer in a group: instances come and go, or are declared dead, and no record is passed over."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import Topic
from shared.kafka.consuming import watch
from shared.kafka.consuming.consumer import ConsumerLimits
from tests.support.consuming import Batch, Committed, Worker, committed, new_topic, numbers, settings_for, write
from tests.support.waiting import eventually

PARTITIONS = 4


def processed(workers: Iterable[Worker]) -> dict[int, set[int]]:
    """The offsets of every partition that were processed to the end, by anybody."""
    done: dict[int, set[int]] = defaultdict(set)
    for worker in workers:
        for partition, offset, _ in worker.seen:
            done[partition].add(offset)
    return done


async def watch_offsets(group: Committed, workers: list[Worker], checks: list[int]) -> None:
    """Check repeatedly that nothing is committed that was not processed."""
    while True:
        offsets = await group.offsets()
        done = processed(workers)
        for partition, end in offsets.items():
            missing = set(range(end)) - done[partition]
            assert not missing, f"partition {partition}: {sorted(missing)} committed at {end}, never processed"
        checks.append(len(offsets))
        await asyncio.sleep(0.01)


async def keep_writing(kafka: KafkaBroker, topic: Topic, until: asyncio.Event) -> int:
    """Write numbers, about 500 a second, until stopped. Returns how many, a multiple of the partitions."""
    written = 0
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all", linger_ms=5) as producer:
        while not until.is_set():
            futures = [
                await producer.send(topic.name, record.value, partition=record.partition, headers=record.headers)
                for record in numbers(20, partitions=PARTITIONS, start=written)
            ]
            await asyncio.gather(*futures)
            written += 20
            await asyncio.sleep(0.03)
    return written


async def test_while_instances_join_and_leave_every_record_is_processed_and_no_offset_passes_one_that_is_not(
    kafka: KafkaBroker,
) -> None:
    topic = await new_topic(kafka, partitions=PARTITIONS)
    workers: list[Worker] = []
    checks: list[int] = []
    enough = asyncio.Event()

    async def slowly(_: Batch) -> None:
        await asyncio.sleep(0.02)

    def another() -> Worker:
        workers.append(Worker(kafka, topic, process=slowly, limits=ConsumerLimits(max_records=20)))
        return workers[-1]

    async with committed(kafka, topic) as group:
        writing = asyncio.create_task(keep_writing(kafka, topic, enough))
        watching = asyncio.create_task(watch_offsets(group, workers, checks))
        first, second = another(), another()
        await first.start()
        await first.processes(50)
        await second.start()
        await second.processes(50)
        assert 0 < len(first.consumer.assigned) < PARTITIONS, "they share"
        assert first.consumer.assigned.isdisjoint(second.consumer.assigned)
        await first.stop()
        third = another()
        await third.start()
        await third.processes(50)
        await second.stop()
        enough.set()
        total = await writing
        await group.reaches(dict.fromkeys(range(PARTITIONS), total // PARTITIONS), within=30)
        await third.stop()
        assert not watching.done(), watching.exception()
        watching.cancel()

    assert len(checks) > 20
    assert {number for worker in workers for number in worker.numbers} == set(range(total))
    assert not any(worker.bugs for worker in workers)


async def test_a_batch_that_is_done_within_the_drain_budget_is_committed_before_the_partitions_are_handed_over(
    kafka: KafkaBroker,
) -> None:
    # The session is shorter than the batch: a member that finishes its batch must not be taken for dead.
    settings = settings_for(kafka, kafka_session_timeout_ms=1_000, drain_seconds=10)
    topic = await new_topic(kafka, partitions=2)
    await write(kafka, topic.name, numbers(10, partitions=2))
    joined = asyncio.Event()

    async def until_another_joins(_: Batch) -> None:
        await joined.wait()
        await asyncio.sleep(1.5)

    first = Worker(kafka, topic, process=until_another_joins, settings=settings)
    second = Worker(kafka, topic, settings=settings)
    async with committed(kafka, topic) as group, first:
        await eventually(lambda: bool(first.attempts), "a batch in hand")
        starting = asyncio.create_task(second.start())
        await eventually(first.consumer._holding.handed_over.is_set, "the first one knows of the rebalance")
        joined.set()
        await starting
        await group.reaches({0: 5, 1: 5})
        await second.stop()

    assert sorted(first.numbers) == list(range(10))
    assert second.numbers == [], "nothing was done twice"
    assert first.metric("commits_refused_total") == first.metric("batches_abandoned_total") == 0


async def test_a_batch_that_outlasts_the_drain_budget_becomes_a_zombie_that_commits_nothing(kafka: KafkaBroker) -> None:
    settings = settings_for(kafka, drain_seconds=0.3)
    topic = await new_topic(kafka, partitions=2)
    await write(kafka, topic.name, numbers(10, partitions=2))
    go = asyncio.Event()

    async def stuck(_: Batch) -> None:
        await go.wait()

    first = Worker(kafka, topic, process=stuck, settings=settings)
    second = Worker(kafka, topic, settings=settings)
    async with committed(kafka, topic) as group, first:
        await eventually(lambda: bool(first.attempts), "a batch in hand")
        await second.start()
        [theirs] = second.consumer.assigned
        await eventually(lambda: len(second.seen) == 5, "the second one does its partition again")
        await group.reaches({theirs: 5})
        assert first.seen == []
        go.set()
        await group.reaches({0: 5, 1: 5})
        await second.stop()

    assert first.metric("batches_abandoned_total") >= 1
    assert {number for worker in (first, second) for number in worker.numbers} == set(range(10))
    assert not first.bugs
    assert not second.bugs


async def test_a_held_batch_is_given_up_at_once_when_its_partitions_are_wanted(kafka: KafkaBroker) -> None:
    settings = settings_for(kafka, drain_seconds=60)
    topic = await new_topic(kafka, partitions=2)
    await write(kafka, topic.name, numbers(10, partitions=2))

    async def away(_: Batch) -> None:
        raise ConnectionError("away for the first one only")

    async with Worker(kafka, topic, process=away, settings=settings) as first:
        await eventually(lambda: len(first.attempts) >= 2, "held")
        async with Worker(kafka, topic, settings=settings) as second:
            await eventually(lambda: len(second.seen) == 5, "the second one works while the first one is held")
            assert first.metric("batches_abandoned_total") >= 1


async def test_a_member_that_was_silent_too_long_finds_its_commit_refused_and_starts_again(kafka: KafkaBroker) -> None:
    """A process that was frozen, as by SIGSTOP: its heartbeats stop, its partitions go, and then it wakes up."""
    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(5))
    settings = settings_for(kafka, kafka_session_timeout_ms=1_000)
    frozen, go = asyncio.Event(), asyncio.Event()

    async def frozen_once(_: Batch) -> None:
        if not frozen.is_set():
            heartbeats = first.consumer._consumer._coordinator._heartbeat_task
            heartbeats.cancel()
            frozen.set()
            await go.wait()

    first = Worker(kafka, topic, process=frozen_once, settings=settings)
    second = Worker(kafka, topic, settings=settings)
    async with committed(kafka, topic) as group, first:
        await frozen.wait()
        async with second:
            await second.processes(5)
            await group.reaches({0: 5})
            go.set()
            await eventually(lambda: first.metric("commits_refused_total") == 1, "refused")
            assert not first.bugs
            await write(kafka, topic.name, numbers(5, start=5))
            await group.reaches({0: 10})
    assert set(first.numbers + second.numbers) == set(range(10))


async def test_an_instance_shows_lag_only_for_partitions_that_it_owns(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_MEASURE_SECONDS", 0.05)
    topic = await new_topic(kafka, partitions=2)

    def shown(worker: Worker) -> set[int]:
        return {number for number in (0, 1) if worker.shows("lag_records", partition=str(number))}

    async with Worker(kafka, topic) as first:
        await eventually(lambda: shown(first) == {0, 1}, "both")
        async with Worker(kafka, topic) as second:
            await eventually(lambda: shown(first) == first.consumer.assigned != {0, 1}, "its own")
            await eventually(lambda: shown(second) == second.consumer.assigned, "the other's own")


async def test_the_rebalance_hooks_are_told_what_comes_and_what_goes(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka, partitions=2)
    told: list[tuple[str, set[int]]] = []

    async def on_assigned(partitions: set[int]) -> None:
        told.append(("assigned", partitions))

    async def on_revoked(partitions: set[int]) -> None:
        told.append(("revoked", partitions))

    async with Worker(kafka, topic, on_assigned=on_assigned, on_revoked=on_revoked) as first:
        assert told == [("assigned", {0, 1})]
        async with Worker(kafka, topic):
            await eventually(lambda: len(told) >= 3, "told of the rebalance")
            assert told[1] == ("revoked", {0, 1})
            assert told[2] == ("assigned", set(first.consumer.assigned))
