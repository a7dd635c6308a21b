"""States that cannot be, written by hand: tally counts on, and what was hit is right again, on real Valkey and PostgreSQL."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from services.tally.counting import audit as tally_audit
from services.tally.counting.audit import AuditLoop, audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.store import Reached, TallyStore
from shared import redis as shared_redis
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from shared.kafka.errors import SetAside
from shared.postgres import Database
from tests.integration.databases import database_named, redis_numbered
from tests.integration.test_tally_healing import HERE, THERE, Parts, Process, facts
from tests.signing import FERRY, NOON, PATH, as_read, fact, petition

KEY, MINUTES = f"tally:{{{PATH}}}", f"tally:{{{PATH}}}:minutes"


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "tally_impossible") as database:
        yield database


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with redis_numbered(valkey, 11) as client:
        yield client


@pytest.fixture
async def parts(redis: Redis, database: Database) -> Parts:
    await database.pool.execute(
        "DELETE FROM ledger; DELETE FROM milestones; DELETE FROM redis_witness; DELETE FROM tally_epochs"
    )
    return Parts(redis, database)


@pytest.fixture
async def process(parts: Parts) -> Process:
    """An owner of both petitions that has counted four signatures of each."""
    process = await parts.start(HERE, THERE)
    await process.looks_after()
    await process.takes(await parts.decided(*facts(1, 2, 3, 4), *facts(5, 6, 7, 8, petition_id=FERRY)))
    await process.looks_after()
    await process.snapshots.flush()
    return process


async def audited(process: Process, parts: Parts, rounds: int = 1, lag: int = 0) -> None:
    """So many rounds of the periodic audit, and what the watch does afterwards."""
    loop = AuditLoop(
        store=parts.store,
        ledger=parts.ledger,
        metrics=process.handler._metrics,
        owns=process.handler.owns,
        interval_seconds=300,
        heal=process.handler.heal,
        compare=process.handler.compare,
        lag=lambda: lag,
        thresholds=process.handler.thresholds,
        reached=process.handler.reached,
    )
    for _ in range(rounds):
        await loop._audit_once()
    await process.looks_after()
    await process.snapshots.flush()


def told(parts: Parts, petition_id: str = PATH) -> TallyUpdated:
    """What a subscriber knows who takes the snapshot with the highest version."""
    snapshots = [TallyUpdated.model_validate_json(one.value or b"") for one in parts.producer.on(TALLIES_UPDATED.name)]
    return max((one for one in snapshots if one.petition_id == petition_id), key=lambda one: one.version)


# ------------------------------------------------------------------------------------------------ values in Redis


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


# --------------------------------------------------------------------------------------------- what was announced


def forged(count: int, revision: int, epoch: int = 0) -> TallyUpdated:
    return TallyUpdated(
        petition_id=PATH,
        count=count,
        revision=revision,
        epoch=epoch,
        countries={"NL": count},
        minutes={},
        earlier=count,
        updated_at=NOON,
    )


@pytest.mark.parametrize(
    "announced",
    [forged(987_654_321, 10**15), forged(5, 5), forged(5, 4), forged(1, 1, epoch=1_795_000_000_000)],
    ids=["far ahead", "one ahead", "the same revision", "another epoch"],
)
async def test_a_snapshot_that_nobody_counted_is_taken_back(
    parts: Parts, process: Process, announced: TallyUpdated
) -> None:
    process.handler.on_announced(announced, announced.model_dump_json().encode())
    await process.looks_after()
    await process.snapshots.flush()
    assert told(parts).version > announced.version
    assert told(parts).count == 4
    await process.takes(await parts.decided(fact(9)))
    await process.snapshots.flush()
    assert (told(parts).count, told(parts).revision) == (5, 5)
    assert process.registry.get_sample_value("groundswell_tally_snapshots_taken_back_total") == 1


async def test_what_was_taken_back_stays_so_when_redis_is_lost(parts: Parts, process: Process, redis: Redis) -> None:
    announced = forged(1_000, 1_000)
    process.handler.on_announced(announced, announced.model_dump_json().encode())
    await process.looks_after()
    await process.snapshots.flush()
    epoch = told(parts).epoch
    await redis.flushdb()
    await process.looks_after()
    assert (await parts.store.tallies([PATH]))[PATH].version == (epoch, 4)


async def test_what_the_owner_has_published_itself_is_compared_with_nothing(parts: Parts, process: Process) -> None:
    rebuilt = process.rebuilds("announced")
    for record in parts.producer.on(TALLIES_UPDATED.name):
        snapshot = TallyUpdated.model_validate_json(record.value or b"")
        process.handler.on_announced(snapshot, record.value or b"")
    await process.looks_after()
    assert process.rebuilds("announced") == rebuilt


async def test_a_rebuild_by_force_below_what_was_announced_reaches_subscribers(
    parts: Parts, process: Process, database: Database
) -> None:
    await database.pool.execute("DELETE FROM ledger WHERE petition_id = $1 AND position > 1", PATH)  # put back
    await process.healer.rebuild(PATH, cause="command", force=True)  # by another process: the command
    await process.looks_after()
    await process.snapshots.flush()
    assert (told(parts).count, told(parts).revision) == (1, 1)
    assert told(parts).epoch > 0


async def test_the_audit_compares_what_is_announced_as_well(parts: Parts, process: Process) -> None:
    (right,) = await audit(parts.store, parts.ledger, [PATH], {PATH: told(parts)})
    assert right.right
    for wrong in (forged(5, 5), forged(5, 4)):
        (found,) = await audit(parts.store, parts.ledger, [PATH], {PATH: wrong})
        assert [difference.split()[0] for difference in found.differences] == ["announced"]


async def test_audits_of_a_small_installation_follow_each_other_in_seconds(
    parts: Parts, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    class Enough(Exception):
        pass

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) > 2:
            raise Enough

    monkeypatch.setattr(tally_audit.asyncio, "sleep", nap)
    loop = AuditLoop(
        store=parts.store,
        ledger=parts.ledger,
        metrics=process.handler._metrics,
        owns=process.handler.owns,
        interval_seconds=timedelta(minutes=5).total_seconds(),
    )
    with pytest.raises(Enough):
        await loop.run()
    assert max(naps) <= 300
    assert naps[0] == 5
    assert isinstance(parts.store, TallyStore)
    assert isinstance(parts.ledger, Ledger)
