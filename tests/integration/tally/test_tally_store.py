"""The Lua scripts and their callers, on a real Valkey: atomic, once, and without loss."""

from collections.abc import AsyncIterator
from itertools import count as counting_from

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from deploy.local.parts.valkey import Valkey
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import UNKNOWN, Step, step
from services.tally.counting.tally import Applied, NotApplied, Reached, TallyState
from shared import redis as shared_redis
from tests.integration.tally.tallying import LANE, MINUTE, apply, everything, refused, signed, told, withdrawn
from tests.support.databases import redis_numbered
from tests.support.signing import PATH, as_read, fact

_numbers = counting_from()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """A database of these tests' own."""
    async with redis_numbered(valkey, 7) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> TallyStore:
    return TallyStore(redis)


# ------------------------------------------------------------------------------------------------------ counting


async def test_signatures_are_counted_with_their_countries_and_minutes(store: TallyStore) -> None:
    reply = await apply(store, signed(1, 3))
    assert (reply.count, reply.revision, reply.unannounced) == (3, 3, ())
    await apply(store, signed(4, 4, country="BE", minute=2))
    assert await store.state(PATH) == TallyState(
        4, 4, {LANE: 4}, {"NL": 3, "BE": 1}, {MINUTE: 3, MINUTE + 2: 1}
    )  # fmt: skip


async def test_a_step_that_comes_again_is_refused_and_changes_nothing(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 3), 2)
    before = await everything(redis)
    assert await refused(store, signed(1, 3), 2) == {LANE: 3}
    assert await everything(redis) == before


@pytest.mark.parametrize("fences", [{LANE: 3, 5: 1}, {LANE: 2, 5: 0}, {LANE: 0}, {LANE: 4, 5: 0}, {}])
async def test_a_step_is_refused_whole_when_any_fence_is_elsewhere(
    store: TallyStore, redis: Redis, fences: dict[int, int]
) -> None:
    await apply(store, signed(1, 3))
    before = await everything(redis)
    part = step(as_read(fact(7, lane=LANE, country="SE", minute=1), fact(9, lane=5)), fences)
    assert await refused(store, part, 1, 4) == {LANE: 3, 5: 0}
    assert await everything(redis) == before, "no count, no break-down, no milestone, no fence"


async def test_asking_for_fences_changes_nothing_even_of_a_petition_that_is_not_there(
    store: TallyStore, redis: Redis
) -> None:
    asked = step(as_read(fact(1), fact(2, lane=5)), {})
    assert asked.lanes == {0: (UNKNOWN, UNKNOWN), 5: (UNKNOWN, UNKNOWN)}
    assert await refused(store, asked, 1) == {0: 0, 5: 0}
    assert await everything(redis) == {}


async def test_facts_below_the_fence_leave_the_tally_as_it_is(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 3))
    before = await everything(redis)
    reply = await apply(store, signed(1, 3, fence=3))
    assert (reply.count, reply.revision) == (3, 3)
    assert await everything(redis) == before


async def test_one_petition_refused_does_not_keep_another_from_counting(store: TallyStore) -> None:
    await apply(store, signed(1, 2))
    replies = await store.apply([(PATH, signed(1, 2), ()), ("another", signed(1, 2), ())])
    assert replies == [NotApplied({LANE: 2}), Applied(2, 2, ())]


async def test_who_withdrew_is_gone_from_every_break_down(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 1, country="BE", minute=1))
    await apply(store, signed(2, 2))
    reply = await apply(store, withdrawn(3, country="BE", minute=1))
    assert (reply.count, reply.revision) == (1, 3)
    assert await store.state(PATH) == TallyState(1, 3, {LANE: 3}, {"NL": 1}, {MINUTE: 1})
    assert "country:BE" not in await redis.hgetall(f"tally:{{{PATH}}}"), "no entry stays for nobody"
    assert str(MINUTE + 1) not in await redis.hgetall(f"tally:{{{PATH}}}:minutes")


async def test_big_numbers_stay_whole(store: TallyStore) -> None:
    big = 3 * 10**15 + 1
    await store.swap_in(PATH, TallyState(big, big + 1, {LANE: big + 2}, {"NL": big}, {MINUTE: big}))
    reply = await apply(store, signed(big + 3, big + 3, fence=big + 2), big + 1)
    assert (reply.count, reply.revision) == (big + 1, big + 2)
    assert [(one.threshold, one.count, one.revision) for one in reply.unannounced] == [(big + 1, big + 1, big + 2)]
    assert await store.state(PATH) == TallyState(
        big + 1, big + 2, {LANE: big + 3}, {"NL": big + 1}, {MINUTE: big + 1}
    )  # fmt: skip
    assert await refused(store, signed(1, 1)) == {LANE: big + 3}
    await store.mark_announced(PATH, [big + 1])
    assert (await apply(store, Step(), big + 1)).unannounced == ()


async def test_scripts_that_redis_forgot_are_loaded_again(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 3), 2)
    await redis.script_flush()
    await store.mark_announced(PATH, [2])
    await redis.script_flush()
    assert (await apply(store, signed(4, 4), 2)).unannounced == ()
    await redis.script_flush()
    assert (await store.tallies([PATH]))[PATH].count == 4
    await redis.script_flush()
    assert await store.swap_in(PATH, await store.state(PATH))
    assert (await store.tallies([PATH]))[PATH].count == 4


# ---------------------------------------------------------------------------------------------------- milestones


async def test_a_milestone_is_reached_in_the_very_call_that_counts_up_to_it(store: TallyStore) -> None:
    assert told(await apply(store, signed(1, 4), 5, 10)) == []
    assert told(await apply(store, signed(5, 6), 5, 10)) == [(5, 6, 6)]


async def test_one_step_may_reach_several_milestones(store: TallyStore) -> None:
    reply = await apply(store, signed(1, 12), 5, 10, 20)
    assert told(reply) == [(5, 12, 12), (10, 12, 12)]
    (first, second) = reply.unannounced
    assert first.petition_id == PATH
    assert first.reached_at == second.reached_at


async def test_a_milestone_is_told_as_first_reached_until_it_is_announced(store: TallyStore) -> None:
    first = await apply(store, signed(1, 5), 5)
    assert (await apply(store, signed(6, 9), 5)).unannounced == first.unannounced
    await store.mark_announced(PATH, [5])
    assert told(await apply(store, signed(10, 12), 5)) == []
    assert told(await apply(store, Step(), 5)) == []


async def test_a_milestone_passed_for_a_moment_within_a_batch_is_reached_with_the_count_of_that_moment(
    store: TallyStore,
) -> None:
    await apply(store, signed(1, 4), 5)
    part = step(
        as_read(fact(5, lane=LANE), fact(6, lane=LANE), fact(7, -1, lane=LANE), fact(8, -1, lane=LANE)), {LANE: 4}
    )
    assert told(await apply(store, part, 5)) == [(5, 6, 8)]


async def test_a_milestone_whose_announcement_was_killed_is_told_again_though_the_count_has_fallen(
    store: TallyStore,
) -> None:
    first = await apply(store, step(as_read(fact(1), fact(2), fact(3, -1)), {0: 0}), 2)
    assert told(first) == [(2, 2, 3)]
    replayed = step(as_read(fact(1), fact(2), fact(3, -1)), {0: 3})
    assert (await apply(store, replayed, 2)).unannounced == first.unannounced
    assert (await apply(store, Step(), 2)).unannounced == first.unannounced


async def test_a_count_that_falls_and_rises_again_reaches_a_milestone_once(store: TallyStore) -> None:
    await apply(store, signed(1, 5), 5)
    await store.mark_announced(PATH, [5])
    assert told(await apply(store, withdrawn(6), 5)) == []
    assert told(await apply(store, signed(7, 9), 5)) == []


async def test_a_milestone_added_below_the_count_is_found_without_another_signature(store: TallyStore) -> None:
    await apply(store, signed(1, 7), 5)
    await store.mark_announced(PATH, [5])
    assert told(await apply(store, Step(), 5, 6, 8)) == [(6, 7, 7)]
    assert (await store.state(PATH)).revision == 7


async def test_marking_what_is_not_recorded_records_nothing(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 1))
    before = await everything(redis)
    await store.mark_announced(PATH, [5, 10])
    assert await everything(redis) == before
    await store.mark_announced("nobody-signed-this", [5])
    assert await everything(redis) == before


# ---------------------------------------------------------------------------------------------------------- reading


async def test_a_snapshot_is_the_hour_up_to_the_newest_signature_and_the_rest(store: TallyStore) -> None:
    for place, minute in enumerate([-500, -60, -59, 0, 0]):
        await apply(store, signed(place + 1, place + 1, minute=minute, country="BE" if minute else "NL"))
    found = (await store.tallies([PATH]))[PATH]
    assert (found.count, found.revision, found.earlier) == (5, 5, 2)
    assert found.minutes == {"2026-11-22T11:01Z": 1, "2026-11-22T12:00Z": 2}
    assert found.countries == {"BE": 3, "NL": 2}


async def test_petitions_are_read_together_also_those_that_nobody_signed(store: TallyStore, redis: Redis) -> None:
    await apply(store, signed(1, 2))
    found = await store.tallies(["quiet", PATH])
    assert {name: (one.count, one.revision, one.earlier) for name, one in found.items()} == {
        "quiet": (0, 0, 0),
        PATH: (2, 2, 0),
    }
    assert await store.tallies([]) == {}
    assert await redis.keys("*quiet*") == [], "reading writes nothing"


facts = st.lists(
    st.tuples(st.sampled_from([1, 1, 1, -1]), st.sampled_from(["NL", "BE"]), st.integers(-90, 90)), max_size=25
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=facts, cuts=st.lists(st.integers(1, 9), min_size=25, max_size=25), thresholds=st.sets(st.integers(1, 12)))
async def test_a_stored_tally_is_what_its_facts_say_however_they_were_cut(
    store: TallyStore, made: list[tuple[int, str, int]], cuts: list[int], thresholds: set[int]
) -> None:
    petition_id = f"cut-{next(_numbers)}"
    signed_once = as_read(
        *(fact(at + 1, delta, country=country, minute=m) for at, (delta, country, m) in enumerate(made))
    )
    whole = step(signed_once, {0: 0})
    marks = sorted(thresholds)
    reached: set[Reached] = set()
    fence = 0
    for size in cuts:
        batch = signed_once[fence : fence + size]
        reply = await apply(store, step(batch, {0: fence}), *marks, petition_id=petition_id)
        reached.update(reply.unannounced)
        fence += len(batch)
    assert await store.state(petition_id) == TallyState(
        whole.delta,
        whole.changes,
        {0: len(made)} if made else {},
        {code: number for code, number in whole.countries.items() if number},
        {minute: number for minute, number in whole.minutes.items() if number},
    )
    assert {one.threshold for one in reached} == {mark for mark in marks if mark <= whole.peak}
    assert len(reached) == len({one.threshold for one in reached}), "each as it was first reached"
    found = (await store.tallies([petition_id]))[petition_id]
    if whole.delta >= 0:
        assert found.earlier + sum(found.minutes.values()) == found.count == whole.delta


async def test_the_identity_of_redis_changes_with_a_flush_and_with_a_restart(valkey: Valkey, redis: Redis) -> None:
    first = await shared_redis.identity(redis)
    assert await shared_redis.identity(redis) == first
    await redis.flushdb()
    second = await shared_redis.identity(redis)
    assert second != first
    await valkey.restart()
    await redis.connection_pool.disconnect()
    third = await shared_redis.identity(redis)
    assert third != second
    assert third.partition("/")[2] == second.partition("/")[2], "the data is the same, the server is another"
