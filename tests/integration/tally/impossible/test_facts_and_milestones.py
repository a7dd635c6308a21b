"""Facts, rows of the ledger and milestones that cannot be, on real Valkey and PostgreSQL."""

import pytest
from redis.asyncio import Redis

from services.tally.counting.tally import Reached
from shared.postgres import Database
from shared.runtime.failures import SetAside
from tests.integration.tally.impossible.audited import KEY, audited, told
from tests.integration.tally.test_tally_healing import HERE, Parts, Process, facts
from tests.support.signing import FERRY, NOON, PATH, as_read, fact, petition

# -------------------------------------------------------------------------------------------------- facts and ledger


async def test_a_fact_beyond_the_end_of_its_lane_is_set_aside_and_its_neighbours_count(
    parts: Parts, process: Process
) -> None:
    good = await parts.decided(fact(9), fact(10, petition_id=FERRY))
    batch = as_read(good[0], fact(2**52), good[1], fact(11))
    with pytest.raises(SetAside) as found:
        await process.handler.process(batch)
    assert {place: why.reason for place, why in found.value.refused.items()} == {1: "not_in_ledger", 3: "not_in_ledger"}
    await process.handler.process([batch[0], batch[2]])
    await parts.is_proved(PATH, 5)
    await parts.is_proved(FERRY, 5)


async def test_a_fact_that_nobody_decided_is_found_by_the_audit_and_mails_nobody(
    parts: Parts, process: Process
) -> None:
    parts.catalogue.apply(petition(PATH, milestones=[2, 4, 5]))
    await process.takes([fact(6)])  # the place of another petition's row
    await process.looks_after()
    assert (PATH, 5) not in parts.announced
    assert process.registry.get_sample_value("groundswell_tally_milestones_unproved_total") == 1
    await audited(process, parts)
    await parts.is_proved(PATH, 4)
    await process.takes(await parts.decided(fact(9)))
    await process.looks_after()
    assert parts.announced.count((PATH, 5)) == 1, "it is announced when it is true"


async def test_the_last_rows_of_the_ledger_are_deleted_and_the_count_is_what_the_ledger_says(
    parts: Parts, process: Process, database: Database
) -> None:
    await database.pool.execute("DELETE FROM ledger WHERE petition_id = $1 AND position > 2", PATH)
    await audited(process, parts)
    await parts.is_proved(PATH, 2)
    assert (told(parts).count, told(parts).revision) == (2, 2)
    await process.takes(await parts.decided(fact(9)))
    await parts.is_proved(PATH, 3)


async def test_a_row_in_the_middle_is_deleted_or_moved_to_another_petition(
    parts: Parts, process: Process, database: Database
) -> None:
    await database.pool.execute("DELETE FROM ledger WHERE petition_id = $1 AND position = 2", PATH)
    await database.pool.execute("UPDATE ledger SET petition_id = $1 WHERE position = 7", PATH)
    await audited(process, parts, rounds=2)
    await parts.is_proved(PATH, 4)
    await parts.is_proved(FERRY, 3)


async def test_times_without_an_end_are_no_rows_of_the_ledger(parts: Parts, database: Database) -> None:
    await parts.decided(*facts(1))
    for moment in ("infinity", "-infinity", "4000-01-01"):
        with pytest.raises(Exception, match="ledger_times_can_be"):
            await database.pool.execute(f"UPDATE ledger SET signed_at = '{moment}'")
    with pytest.raises(Exception, match="milestones_can_be"):
        await database.pool.execute("INSERT INTO milestones VALUES ($1, 5, 0, 1, now())", PATH)


# ------------------------------------------------------------------------------------------------------- milestones


async def test_a_milestone_that_only_the_ledger_has_seen_is_announced_after_redis_was_lost(parts: Parts) -> None:
    """Ten sign and three withdraw while tally is down, and Redis is flushed."""
    parts.catalogue.apply(petition(PATH, milestones=[10]))
    signed = facts(*range(1, 11))
    await parts.decided(*signed, *(fact(position, -1, minute=5) for position in (11, 12, 13)))
    await parts.redis.flushdb()
    process = await parts.start()
    await process.looks_after()
    await parts.is_proved(PATH, 7)
    assert parts.announced == [(PATH, 10)]


@pytest.mark.parametrize(
    "mark",
    [
        "garbage",
        "reached:x:1:1",
        "announced",
        "",
        "reached:0:0:1764000000000",
        "reached:5:5:99999999999999999",
        "reached:99999999999999999999:5:1764000000000",
        "reached:5:5:0",
    ],
)
async def test_a_mark_that_nobody_has_written_keeps_no_milestone_from_being_announced(
    parts: Parts, process: Process, redis: Redis, mark: str
) -> None:
    parts.catalogue.apply(petition(PATH, milestones=[2, 4, 5]))
    await redis.hset(KEY, "milestone:5", mark)
    await process.takes(await parts.decided(fact(9)))
    await process.looks_after()
    assert parts.announced.count((PATH, 5)) == 1


async def test_a_mark_that_was_written_by_hand_announces_nothing(parts: Parts, process: Process, redis: Redis) -> None:
    parts.catalogue.apply(petition(PATH, milestones=[2, 4, 1_000]))
    await redis.hset(KEY, "milestone:1000", "reached:1000:1000:1795348800000")
    await process.takes(await parts.decided(fact(9)))
    await process.looks_after()
    assert (PATH, 1_000) not in parts.announced
    assert not await redis.hexists(KEY, "milestone:1000")


async def test_a_milestone_that_redis_believes_to_be_announced_and_nobody_recorded_is_announced(
    parts: Parts, process: Process, redis: Redis
) -> None:
    parts.catalogue.apply(petition(PATH, milestones=[2, 3, 4]))
    await redis.hset(KEY, "milestone:3", "announced:3:3:1795348800000")
    await audited(process, parts)
    assert parts.announced.count((PATH, 3)) == 1


async def test_a_recorded_milestone_that_nobody_reached_is_not_announced(parts: Parts, process: Process) -> None:
    await parts.ledger.record_milestone(Reached(PATH, 50, 50, 50, NOON))
    another = await parts.start(HERE)
    await another.looks_after()
    assert (PATH, 50) not in parts.announced
