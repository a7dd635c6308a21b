"""Impossible values in Redis: tally goes on counting, and the petition recovers, on real Valkey and PostgreSQL."""

import pytest
from redis.asyncio import Redis

from services.tally.counting import audit as tally_audit
from shared import redis as shared_redis
from shared.postgres import Database
from tests.integration.tally.impossible.audited import KEY, MINUTES, audited, told
from tests.integration.tally.test_tally_healing import HERE, THERE, Parts, Process
from tests.support.signing import FERRY, PATH, fact


@pytest.mark.parametrize(
    "field", ["count", "revision", "fence:0", "latest", "country:NL"], ids=lambda name: name.replace(":", "_")
)
@pytest.mark.parametrize("value", ["abc", "-1e9", "1e300", "nan", "", "9" * 30])
async def test_a_value_that_is_no_number_costs_one_petition_a_rebuild(
    parts: Parts, process: Process, redis: Redis, field: str, value: str
) -> None:
    await redis.hset(KEY, field, value)
    await process.takes(await parts.decided(fact(9), fact(10, petition_id=FERRY)))
    await parts.is_proved(FERRY, 5)
    await parts.is_proved(PATH, 5)
    assert process.rebuilds("damaged") + process.rebuilds("fence_behind") == 1


@pytest.mark.parametrize("key", [KEY, MINUTES])
async def test_a_key_of_another_type_costs_one_petition_a_rebuild(
    parts: Parts, process: Process, redis: Redis, key: str
) -> None:
    await redis.set(key, "somebody's")
    await process.takes(await parts.decided(fact(9), fact(10, petition_id=FERRY)))
    await parts.is_proved(FERRY, 5)
    await parts.is_proved(PATH, 5)


async def test_readers_of_other_petitions_notice_nothing_of_a_damaged_one(
    parts: Parts, process: Process, redis: Redis
) -> None:
    await redis.hset(KEY, "count", "abc")
    found = await parts.store.tallies([PATH, FERRY])
    assert list(found) == [FERRY]
    process.snapshots.changed([PATH])
    await process.snapshots.flush()  # finds it damaged
    await process.looks_after()
    assert (await parts.store.tallies([PATH]))[PATH].count == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latest", "1000000000000"),
        ("count", "77"),
        ("revision", "2"),
        ("country:NL", "9"),
        ("country:XX", "1"),
        ("epoch", "5"),
    ],
)
async def test_a_number_that_was_written_by_hand_is_put_right_by_the_audit(
    parts: Parts, process: Process, redis: Redis, field: str, value: str
) -> None:
    await redis.hset(KEY, field, value)
    await audited(process, parts)
    await parts.is_proved(PATH, 4)
    assert process.registry.get_sample_value("groundswell_tally_healed_total") == 1
    assert told(parts).count == 4


async def test_a_count_that_was_shown_too_high_is_taken_back_from_subscribers(
    parts: Parts, process: Process, redis: Redis
) -> None:
    await redis.hset(KEY, mapping={"count": 1_000, "revision": 1_000})
    process.snapshots.changed([PATH])
    await process.snapshots.flush()
    assert told(parts).count == 1_000
    await audited(process, parts)
    assert (told(parts).count, told(parts).revision) == (4, 4)
    assert told(parts).epoch > 0


async def test_a_fence_that_is_no_row_of_the_ledger_drops_no_later_fact(
    parts: Parts, process: Process, redis: Redis
) -> None:
    await redis.hset(KEY, "fence:0", 1_000_000)
    await process.takes(await parts.decided(fact(9)))
    await parts.is_proved(PATH, 5)
    assert process.rebuilds("fence_unknown") == 1


async def test_a_fence_of_another_petitions_row_is_found_by_a_process_that_has_just_started(
    parts: Parts, process: Process, redis: Redis
) -> None:
    await redis.hset(KEY, "fence:0", 8)
    another = await parts.start(HERE, THERE)
    await another.takes(await parts.decided(fact(9)))
    await parts.is_proved(PATH, 5)


async def test_a_tally_that_was_deleted_is_rebuilt_before_anything_is_added(
    parts: Parts, process: Process, redis: Redis
) -> None:
    await redis.delete(KEY, MINUTES)
    later = await parts.decided(fact(1, lane=5))
    another = await parts.start(HERE)  # it has no memory of what was counted
    await another.takes(later)
    await parts.is_proved(PATH, 5)


async def test_a_tally_that_was_deleted_and_that_nobody_signs_is_counted_again(
    parts: Parts, process: Process, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_audit, "_UNCOUNTED_SECONDS", 0.0)
    await redis.delete(KEY, MINUTES)
    await audited(process, parts, rounds=2)
    await parts.is_proved(PATH, 4)
    assert process.rebuilds("uncounted") == 1


async def test_rows_that_are_still_under_way_are_left_to_come(parts: Parts, process: Process) -> None:
    await parts.decided(fact(9))
    await audited(process, parts, rounds=3, lag=1)
    await audited(process, parts, rounds=3, lag=0)  # verify has committed it, and cannot publish it yet
    assert process.rebuilds("uncounted") == 0


async def test_rows_that_have_not_come_for_a_minute_are_counted_however_much_traffic_there_is(
    parts: Parts, process: Process, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_audit, "_STANDSTILL_SECONDS", 0.0)
    await redis.delete(KEY, MINUTES)
    await audited(process, parts, rounds=2, lag=1)
    await parts.is_proved(PATH, 4)
    assert process.rebuilds("uncounted") == 1


async def test_an_incarnation_of_another_type_costs_a_rebuild(parts: Parts, process: Process, redis: Redis) -> None:
    await redis.delete(shared_redis.INCARNATION_KEY)
    await redis.lpush(shared_redis.INCARNATION_KEY, "x")
    await process.takes(await parts.decided(fact(9)))
    await parts.is_proved(PATH, 5)


async def test_a_minute_far_ahead_hides_no_other(parts: Parts, process: Process, database: Database) -> None:
    await parts.decided(fact(9, minute=60 * 24 * 365 * 50))  # accepted once, by an earlier version
    await process.handler.heal(PATH, "command")
    (found,) = (await parts.store.tallies([PATH])).values()
    assert (sum(found.minutes.values()), found.earlier) == (4, 1)
    await process.takes([fact(9, minute=60 * 24 * 365 * 50), *await parts.decided(fact(10, minute=1))])
    (found,) = (await parts.store.tallies([PATH])).values()
    assert (sum(found.minutes.values()), found.earlier) == (5, 1)
