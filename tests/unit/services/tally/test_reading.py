"""Reading counts for a crowd: who shares a round trip, and what everyone is told when it fails."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ResponseError

from services.tally.live import LiveHub
from services.tally.read_metrics import ReadMetrics
from services.tally.reading import CountsAway, CurrentTallies
from shared.catalogue import Catalogue
from shared.events import TallyUpdated


class SlowRedis:
    """Answers when told to; each answer has a higher revision than the one before."""

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


def tallies_of(redis: SlowRedis) -> CurrentTallies:
    metrics = ReadMetrics(CollectorRegistry())
    return CurrentTallies(redis, LiveHub(Catalogue(), metrics), metrics)


def ask(tallies: CurrentTallies, *petition_ids: str) -> asyncio.Task[dict[str, TallyUpdated]]:
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
    assert set(await one) == {"ferry"}
    assert set(await other) == {"ferry", "path"}
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
    assert [(await task)["ferry"].revision for task in (first, *later)] == [1, 2, 2, 2]


async def test_one_who_gives_up_does_not_end_it_for_the_others() -> None:
    redis = SlowRedis()
    tallies = tallies_of(redis)
    gives_up, stays = ask(tallies, "ferry"), ask(tallies, "ferry")
    await settle()
    gives_up.cancel()
    await settle()
    redis.answers.release()
    assert (await stays)["ferry"].count == 1


@pytest.mark.parametrize("error", [OSError("gone"), ResponseError("LOADING")])
async def test_everyone_of_a_round_is_told_that_redis_is_away_and_the_next_round_is_another(error: Exception) -> None:
    redis = SlowRedis()
    tallies = tallies_of(redis)
    waiting = [ask(tallies, "ferry"), ask(tallies, "ferry")]
    redis.error = error
    for _ in range(2):  # a lost connection is tried once more
        redis.answers.release()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CountsAway, CountsAway]
    redis.error = None
    redis.answers.release()
    assert "ferry" in await tallies.of(["ferry"])


async def test_a_bug_is_raised_as_it_is() -> None:
    redis = SlowRedis()
    redis.error = KeyError("bug")
    redis.answers.release()
    with pytest.raises(KeyError):
        await tallies_of(redis).of(["ferry"])
