"""Putting a rebuilt tally in the place of a stored one, on a real Valkey: whole, and never one that is behind."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.parts.valkey import Valkey
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from shared import redis as shared_redis
from tests.integration.tally.tallying import LANE, MINUTE, apply, everything, signed, told
from tests.support.databases import redis_numbered
from tests.support.signing import PATH


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """A database of these tests' own."""
    async with redis_numbered(valkey, 10) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> TallyStore:
    return TallyStore(redis)


class Killed(BaseException):
    """The process ends here."""


async def test_a_rebuilt_tally_takes_the_place_of_a_lost_one_and_stays(store: TallyStore, redis: Redis) -> None:
    rebuilt = TallyState(2, 4, {LANE: 9, 5: 2}, {"NL": 2}, {MINUTE: 2})
    assert await store.swap_in(PATH, rebuilt)
    assert await store.state(PATH) == rebuilt
    assert {key: left for key, (_, left) in (await everything(redis)).items()} == {
        f"tally:{{{PATH}}}": -1,
        f"tally:{{{PATH}}}:minutes": -1,
    }, "no shadow is left, and what is there never expires"


async def test_nothing_of_the_old_tally_stays(store: TallyStore) -> None:
    await apply(store, signed(1, 3, country="BE", minute=5))
    rebuilt = TallyState(4, 4, {LANE: 4}, {"NL": 4}, {MINUTE: 4})
    assert await store.swap_in(PATH, rebuilt)
    assert await store.state(PATH) == rebuilt


async def test_a_rebuild_that_the_traffic_has_overtaken_changes_nothing(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 5), 2)
    before = await everything(redis)
    for older in (
        TallyState(4, 4, {LANE: 4}, {"NL": 4}, {MINUTE: 4}),
        TallyState(9, 9, {5: 9}, {"NL": 9}, {MINUTE: 9}),
        TallyState(0, 0, {}, {}, {}),
    ):
        assert not await store.swap_in(PATH, older)
    assert await everything(redis) == before, "and leaves no shadow behind"


async def test_force_swaps_whatever_is_stored(store: TallyStore) -> None:
    await apply(store, signed(1, 5))
    rebuilt = TallyState(1, 1, {LANE: 1}, {"NL": 1}, {MINUTE: 1})
    assert await store.swap_in(PATH, rebuilt, force=True)
    assert await store.state(PATH) == rebuilt


async def test_milestones_outlive_a_rebuild(store: TallyStore) -> None:
    await apply(store, signed(1, 5), 2)
    await store.mark_announced(PATH, [2])
    first = await apply(store, signed(6, 8), 2, 7)
    assert await store.swap_in(PATH, TallyState(6, 10, {LANE: 10}, {"NL": 6}, {MINUTE: 6}))
    reply = await apply(store, signed(11, 11), 2, 7)
    assert reply.count == 7
    assert reply.unannounced == first.unannounced, "announced ones stay announced, the others are told as first reached"


async def test_milestones_outlive_a_rebuild_to_nothing(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 5), 2)
    await store.mark_announced(PATH, [2])
    assert await store.swap_in(PATH, TallyState(0, 0, {}, {}, {}), force=True)
    assert [left for _, left in (await everything(redis)).values()] == [-1]
    assert await store.state(PATH) == TallyState(0, 0, {}, {}, {})
    assert told(await apply(store, signed(1, 5), 2)) == []


async def test_a_petition_with_hundreds_of_thousands_of_minutes_is_rebuilt_whole(store: TallyStore) -> None:
    minutes = {MINUTE + number: 1 for number in range(12_000)}
    rebuilt = TallyState(12_000, 12_000, {LANE: 12_000}, {"NL": 12_000}, minutes)
    assert await store.swap_in(PATH, rebuilt)
    assert await store.state(PATH) == rebuilt


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("gone", ["tally", "minutes"])
async def test_a_rebuild_that_slept_until_its_keys_were_gone_puts_nothing_in_place(
    valkey: Valkey, redis: Redis, gone: str, *, force: bool
) -> None:
    """A process that is stopped for longer than its shadow keys last."""
    other = shared_redis.connect(valkey.url.removesuffix("/0") + "/10")
    store = TallyStore(redis)
    await apply(store, signed(1, 5))
    before = await everything(redis)
    sleeper = TallyStore(other)
    swap = sleeper._swap

    async def swap_late(keys: list[str], args: list[Any]) -> Any:
        await redis.delete(keys[2] if gone == "tally" else keys[3])
        return await swap(keys=keys, args=args)

    sleeper._swap = swap_late  # type: ignore[assignment]
    try:
        assert not await sleeper.swap_in(PATH, TallyState(5, 5, {LANE: 5}, {"NL": 5}, {MINUTE: 5}), force=force)
    finally:
        await other.aclose()
    assert await everything(redis) == before


async def test_a_rebuild_that_was_killed_leaves_nothing_for_long(store: TallyStore, redis: Redis) -> None:
    async def killed(**_: Any) -> None:
        raise Killed

    store._swap = killed  # type: ignore[assignment]
    with pytest.raises(Killed):
        await store.swap_in(PATH, TallyState(5, 5, {LANE: 5}, {"NL": 5}, {MINUTE: 5}))
    left = await everything(redis)
    assert len(left) == 2
    assert all(":shadow:" in key and 0 < seconds <= 600 for key, (_, seconds) in left.items())
