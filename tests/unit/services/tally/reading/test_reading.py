"""Reading counts for a crowd: who shares a round trip, and what everyone is given while Redis does not answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from services.tally.reading.counts import Counts, CurrentTallies
from services.tally.reading.live import LiveHub
from services.tally.reading.metrics import ReadMetrics
from shared.contract.catalogue import Catalogue
from shared.contract.events import TallyUpdated


class SlowRedis:
    """Answers on demand; each answer has a higher revision than the previous one."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.answers = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        self.asked.append(set(petition_ids))
        revision = len(self.asked)
        await self.answers.acquire()
        if self.error is not None:
            raise self.error
        return {petition_id: tally(petition_id, revision) for petition_id in petition_ids}


def tally(petition_id: str, revision: int) -> TallyUpdated:
    return TallyUpdated(
        petition_id=petition_id,
        count=revision,
        revision=revision,
        countries={},
        minutes={},
        earlier=revision,
        updated_at=datetime.now(UTC),
    )


NO_LIMIT = 3_600.0
AT_ONCE = 0.0


@dataclass
class World:
    """A Redis that answers on demand, and everything around it."""

    read_seconds: float = NO_LIMIT
    probe_seconds: float = AT_ONCE
    redis: SlowRedis = field(default_factory=SlowRedis)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        metrics = ReadMetrics(self.registry)
        self.hub = LiveHub(Catalogue(), metrics)
        self.tallies = CurrentTallies(
            self.redis, self.hub, metrics, read_seconds=self.read_seconds, probe_seconds=self.probe_seconds
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"groundswell_tally_read_{name}", labels) or 0.0

    async def closes(self) -> None:
        async with asyncio.timeout(10):
            while self.metric("circuit_open"):
                await asyncio.sleep(0)


def tallies_of(redis: SlowRedis) -> CurrentTallies:
    return World(redis=redis).tallies


def ask(tallies: CurrentTallies, *petition_ids: str) -> asyncio.Task[Counts]:
    return asyncio.create_task(tallies.of(petition_ids))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_at_the_same_time_shares_a_round_trip_and_gets_what_was_asked_for() -> None:
    redis = SlowRedis()
    tallies = tallies_of(redis)
    one, other = ask(tallies, "ferry"), ask(tallies, "ferry", "path")
    await settle()
    redis.answers.release()
    assert set((await one).tallies) == {"ferry"}
    assert set((await other).tallies) == {"ferry", "path"}
    assert redis.asked == [{"ferry", "path"}]


async def test_nobody_is_given_a_count_that_was_read_before_the_question() -> None:
    redis = SlowRedis()
    tallies = tallies_of(redis)
    first = ask(tallies, "ferry")
    await settle()
    later = [ask(tallies, "ferry") for _ in range(3)]
    await settle()
    redis.answers.release()
    await settle()
    assert first.done()
    assert not any(task.done() for task in later)
    redis.answers.release()
    assert [(await task).tallies["ferry"].revision for task in (first, *later)] == [1, 2, 2, 2]


async def test_one_who_gives_up_does_not_end_it_for_the_others() -> None:
    redis = SlowRedis()
    tallies = tallies_of(redis)
    gives_up, stays = ask(tallies, "ferry"), ask(tallies, "ferry")
    await settle()
    gives_up.cancel()
    await settle()
    redis.answers.release()
    assert (await stays).tallies["ferry"].count == 1


@pytest.mark.parametrize("error", [OSError("gone"), ResponseError("LOADING")])
async def test_when_redis_fails_everyone_of_the_round_gets_what_was_announced_last(error: Exception) -> None:
    world = World(probe_seconds=NO_LIMIT)
    world.hub.publish(tally("ferry", 7))
    waiting = [ask(world.tallies, "ferry"), ask(world.tallies, "ferry", "path")]
    world.redis.error = error
    for _ in range(2):  # a lost connection is tried once more
        world.redis.answers.release()
    for counts in await asyncio.gather(*waiting):
        assert {petition: one.count for petition, one in counts.tallies.items()} == {"ferry": 7}, "path never was"
        assert "ferry" in counts.stale
    assert world.metric("circuit_open") == 1
    assert world.metric("store_failures_total", cause=type(error).__name__) == 1


async def test_while_redis_says_nothing_the_first_reader_waits_for_a_moment_and_the_others_not_at_all() -> None:
    world = World(read_seconds=AT_ONCE)
    world.hub.publish(tally("ferry", 7))
    for _ in range(30):
        counts = await world.tallies.of(["ferry"])  # Redis has not answered yet
        assert (counts.tallies["ferry"].count, counts.stale) == (7, {"ferry"})
    assert len(world.redis.asked) == 1, "one asks, however many read"
    assert world.metric("store_failures_total", cause="too_slow") == 1
    assert world.metric("circuit_open") == 1


async def test_the_answer_that_nobody_waited_for_closes_the_circuit() -> None:
    world = World(read_seconds=AT_ONCE)
    await world.tallies.of(["ferry"])
    assert world.metric("circuit_open") == 1
    world.redis.answers.release()
    await world.closes()
    assert len(world.redis.asked) == 1


async def test_one_probe_at_a_time_asks_until_redis_is_back_and_then_everyone_does_again() -> None:
    world = World()
    world.redis.error = RedisConnectionError("refused")
    for _ in range(2 * 3):  # each try asks twice over a lost connection
        world.redis.answers.release()
    await world.tallies.of(["ferry"])
    async with asyncio.timeout(10):
        while len(world.redis.asked) < 2 * 3 + 1:  # a third try has failed, and the fourth is running
            await asyncio.sleep(0)
    assert world.metric("store_failures_total", cause="ConnectionError") == 3
    assert world.metric("circuit_open") == 1
    world.redis.error = None
    world.redis.answers.release()
    await world.closes()
    world.redis.answers.release()
    counts = await world.tallies.of(["ferry"])
    assert (set(counts.tallies), counts.stale) == ({"ferry"}, frozenset())


async def test_a_petition_whose_tally_is_damaged_is_as_it_was_announced_and_the_others_are_fresh() -> None:
    class Damaged(SlowRedis):
        async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
            return {one: found for one, found in (await super().tallies(petition_ids)).items() if one != "ferry"}

    world = World(redis=Damaged())
    world.hub.publish(tally("ferry", 7))
    world.redis.answers.release()
    counts = await world.tallies.of(["ferry", "path"])
    assert (counts.tallies["ferry"].count, counts.tallies["path"].count) == (7, 1)
    assert counts.stale == {"ferry"}
    assert world.metric("store_damaged_total") == 1
    assert world.metric("circuit_open") == 0


async def test_a_bug_that_a_probe_meets_is_left_for_a_reader() -> None:
    world = World(read_seconds=AT_ONCE)
    await world.tallies.of(["ferry"])
    world.redis.error = KeyError("bug")
    world.redis.answers.release()
    await world.closes()
    world.redis.answers.release()
    world.tallies = CurrentTallies(world.redis, world.hub, ReadMetrics(CollectorRegistry()), read_seconds=NO_LIMIT)
    with pytest.raises(KeyError):
        await world.tallies.of(["ferry"])


async def test_a_bug_is_raised_as_it_is() -> None:
    redis = SlowRedis()
    redis.error = KeyError("bug")
    redis.answers.release()
    with pytest.raises(KeyError):
        await tallies_of(redis).of(["ferry"])
