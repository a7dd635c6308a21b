"""Redis loses state and counts are rebuilt from the ledger: on real Valkey and PostgreSQL, deterministic."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from services.tally.counting import watch
from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.audit import audit
from services.tally.counting.handlers import TallyHandler
from services.tally.counting.healing import Healer, RebuildOvertaken
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import Reached, TallyState
from shared.contract.catalogue import Catalogue
from shared.contract.events import CountedFact, MilestoneReached
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED
from shared.kafka.producing.partitioner import partition_of
from shared.postgres import Database
from tests.integration.tally.tallying import put_into_ledger
from tests.support.databases import database_named, redis_numbered
from tests.support.signing import FERRY, NOON, PATH, MemoryProducer, as_read, fact, petition

PARTITIONS = 12
HERE, THERE = partition_of(PATH.encode(), PARTITIONS), partition_of(FERRY.encode(), PARTITIONS)


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "tally_healing") as database:
        yield database


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with redis_numbered(valkey, 9) as client:
        yield client


@pytest.fixture
async def parts(redis: Redis, database: Database) -> "Parts":
    await database.pool.execute("DELETE FROM ledger; DELETE FROM milestones; DELETE FROM redis_witness")
    return Parts(redis, database)


class Parts:
    """Redis, the ledger, the topics; processes come and go."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self.redis, self.database = redis, database
        self.store, self.ledger = TallyStore(redis), Ledger(database)
        self.producer = MemoryProducer(partitions=PARTITIONS)
        self.catalogue = Catalogue()
        for name in (PATH, FERRY):
            self.catalogue.apply(petition(name, milestones=[2, 4]))

    async def decided(self, *facts: CountedFact) -> Sequence[CountedFact]:
        """Verify has put these into the ledger."""
        await put_into_ledger(self.database, *facts)
        return facts

    async def start(self, *partitions: int) -> "Process":
        """A process that owns these partitions, the one of the river path if none is given, and knows nothing yet."""
        process = Process(self)
        await process.handler.on_assigned(set(partitions or (HERE,)))
        return process

    async def is_proved(self, petition_id: str, count: int) -> None:
        (found,) = await audit(self.store, self.ledger, [petition_id])
        assert (found.counted, found.right, found.beyond) == (count, True, 0), found

    @property
    def announced(self) -> list[tuple[str, int]]:
        told = [
            MilestoneReached.model_validate_json(one.value or b"") for one in self.producer.on(MILESTONES_REACHED.name)
        ]
        return [(one.petition_id, one.threshold) for one in told]


class Process:
    """A tally process, made by hand."""

    def __init__(self, parts: Parts) -> None:
        self.registry = CollectorRegistry()
        metrics = TallyMetrics(self.registry)
        store, ledger, producer = parts.store, parts.ledger, parts.producer
        self.healer = Healer(redis=parts.redis, store=store, ledger=ledger, metrics=metrics)
        self.snapshots = SnapshotAnnouncer(store=store, producer=producer, metrics=metrics, interval_seconds=1)
        self.handler = TallyHandler(
            catalogue=parts.catalogue,
            store=store,
            ledger=ledger,
            healer=self.healer,
            milestones=MilestoneAnnouncer(ledger=ledger, store=store, producer=producer, metrics=metrics),
            snapshots=self.snapshots,
            producer=producer,
            metrics=metrics,
        )

    async def takes(self, facts: Sequence[CountedFact]) -> None:
        """A batch arrives."""
        await self.handler.process(as_read(*facts))

    async def looks_after(self) -> None:
        """One round of the watch."""
        await self.handler.watching.look_after()

    def rebuilds(self, cause: str) -> float:
        return self.registry.get_sample_value("groundswell_tally_rebuilds_total", {"cause": cause}) or 0


def facts(*positions: int, **fields: Any) -> list[CountedFact]:
    return [fact(position, **fields) for position in positions]


# --------------------------------------------------------------------------------------------------- lost and found


async def test_a_first_start_counts_what_the_ledger_has_and_drops_what_is_still_under_way(parts: Parts) -> None:
    known = await parts.decided(*facts(1, 2, 3), fact(1, lane=5))
    process = await parts.start()
    await process.looks_after()
    await parts.is_proved(PATH, 4)
    await process.takes(known)
    await parts.is_proved(PATH, 4)
    assert process.rebuilds("first_count") == 1
    assert process.rebuilds("another_redis") == 0  # nothing was lost: no alert


async def test_a_flushed_redis_is_noticed_by_the_next_batch_of_any_petition(parts: Parts) -> None:
    process = await parts.start(HERE, THERE)
    await process.takes(await parts.decided(*facts(1, 2), *facts(3, 4, petition_id=FERRY)))
    await parts.redis.flushdb()
    await process.takes(await parts.decided(*facts(5, 6)))
    await parts.is_proved(PATH, 4)
    await process.looks_after()
    await parts.is_proved(FERRY, 2)  # without signatures only Redis' identity shows it


async def test_a_flushed_redis_is_noticed_while_nobody_signs(parts: Parts) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2)))
    await parts.redis.flushdb()
    await process.looks_after()
    await parts.is_proved(PATH, 2)


async def test_a_redis_that_came_back_older_is_brought_up_to_date(parts: Parts) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2)))
    older = {str(key): await parts.redis.hgetall(key) for key in await parts.redis.keys("tally:*")}
    await process.takes(await parts.decided(*facts(3, 4)))
    await parts.redis.flushdb()
    for key, fields in older.items():
        await parts.redis.hset(key, items=[part for field in fields.items() for part in field])
    await process.looks_after()
    await parts.is_proved(PATH, 4)


async def test_a_redis_that_is_the_same_is_left_alone_by_the_next_owner(parts: Parts) -> None:
    first = await parts.start()
    await first.takes(await parts.decided(*facts(1, 2)))
    second = await parts.start()
    await second.takes(await parts.decided(*facts(3)))
    await second.looks_after()
    assert second.rebuilds("another_redis") == 0
    await parts.is_proved(PATH, 3)


async def test_only_the_petitions_of_the_owned_partitions_are_rebuilt(parts: Parts) -> None:
    assert HERE != THERE
    await parts.decided(*facts(1, 2), *facts(3, 4, petition_id=FERRY))
    process = await parts.start(HERE)
    await process.looks_after()
    await parts.is_proved(PATH, 2)
    assert (await parts.store.state(FERRY)).count == 0
    other = await parts.start(THERE)
    await other.looks_after()
    await parts.is_proved(FERRY, 2)


async def test_a_tally_deleted_under_a_running_process_is_noticed_by_its_fence(parts: Parts) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2)))
    await parts.redis.delete(f"tally:{{{PATH}}}")
    await process.takes(await parts.decided(*facts(3)))
    assert process.rebuilds("fence_behind") == 1
    await parts.is_proved(PATH, 3)


async def test_a_tally_deleted_before_a_process_has_seen_it_is_noticed_by_the_ledger(parts: Parts) -> None:
    first = await parts.start()
    await first.takes(await parts.decided(*facts(1, 2), fact(1, lane=5)))
    await parts.redis.delete(f"tally:{{{PATH}}}", f"tally:{{{PATH}}}:minutes")
    second = await parts.start()
    await second.takes(await parts.decided(*facts(3)))
    assert second.rebuilds("missing") == 1
    await parts.is_proved(PATH, 4)


async def test_a_tally_deleted_while_a_lane_was_quiet_is_noticed_when_that_lane_has_signatures_again(
    parts: Parts,
) -> None:
    first = await parts.start()
    await first.takes(await parts.decided(*facts(1, 2)))
    await parts.redis.delete(f"tally:{{{PATH}}}", f"tally:{{{PATH}}}:minutes")
    second = await parts.start()
    await second.takes(await parts.decided(fact(1, lane=5)))  # nothing was before it in its lane
    await second.takes(await parts.decided(*facts(3)))
    await parts.is_proved(PATH, 4)


async def test_a_petitions_first_signatures_are_no_loss(parts: Parts) -> None:
    process = await parts.start()
    await process.looks_after()  # this Redis is known to be right from here on
    first = await parts.decided(*facts(1, 2), *facts(8, lane=3))
    await parts.decided(fact(9, lane=4))  # decided, but the fact is still in flight
    await process.takes(first)
    assert process.rebuilds("missing") == 0, "nothing was lost, and nobody is alarmed"
    found = await parts.store.state(PATH)
    assert (found.count, found.fences) == (4, {0: 2, 3: 8, 4: 9}), "with what is under way: it drops out when it comes"
    await process.takes([fact(9, lane=4)])
    assert await parts.store.state(PATH) == found


async def test_what_another_process_counted_is_not_counted_again(parts: Parts) -> None:
    owner, zombie = await parts.start(), await parts.start()
    await owner.looks_after()
    await owner.takes(await parts.decided(*facts(1, 2)))
    await zombie.takes(facts(1, 2))
    later = await parts.decided(*facts(3, 4))
    await zombie.takes(later)
    await owner.takes(later)
    await parts.is_proved(PATH, 4)
    assert owner.registry.get_sample_value("groundswell_tally_fences_moved_total") == 1
    assert owner.registry.get_sample_value("groundswell_tally_replays_dropped_total") == 2


async def test_a_rebuild_that_traffic_overtakes_takes_a_newer_snapshot_of_the_ledger(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2)))
    old = await parts.ledger.state(PATH)
    await process.takes(await parts.decided(*facts(3)))
    new = await parts.ledger.state(PATH)
    snapshots = [old, old, new]

    async def state(_: Ledger, __: str) -> TallyState:
        return snapshots.pop(0)

    monkeypatch.setattr(Ledger, "state", state)
    assert await process.healer.rebuild(PATH, cause="command") == new
    snapshots[:] = [old] * 30
    with pytest.raises(RebuildOvertaken):
        await process.healer.rebuild(PATH, cause="command")
    monkeypatch.undo()
    await parts.is_proved(PATH, 3)


# -------------------------------------------------------------------------------------------------------- milestones


async def test_a_milestone_is_announced_once_also_after_redis_was_lost_and_the_count_fell(parts: Parts) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2)))
    assert parts.announced == [(PATH, 2)]
    await process.takes(await parts.decided(fact(3, -1)))
    await parts.redis.flushdb()
    await process.takes(await parts.decided(*facts(4)))
    await process.looks_after()
    assert parts.announced == [(PATH, 2)]


class Killed(BaseException):
    """The process ends here."""


async def _killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("what", "name", "copies"),
    [
        (Ledger, "record_milestone", 1),
        (MemoryProducer, "publish", 1),
        (Ledger, "mark_announced", 2),
        (TallyStore, "mark_announced", 1),
    ],
)
@pytest.mark.parametrize("fallen", [False, True])
async def test_a_process_killed_while_it_announces_leaves_a_milestone_to_the_next(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, what: type, name: str, copies: int, *, fallen: bool
) -> None:
    process = await parts.start()
    await process.looks_after()
    batch = await parts.decided(*facts(1, 2), *([fact(3, -1)] if fallen else []))
    with monkeypatch.context() as killing:
        killing.setattr(what, name, _killed)
        with pytest.raises(Killed):
            await process.takes(batch)
    after = await parts.start()
    await after.takes(batch)  # it was not committed
    await after.looks_after()
    assert parts.announced == [(PATH, 2)] * copies
    assert len({one.value for one in parts.producer.on(MILESTONES_REACHED.name)}) == 1, "and it is the same event"
    assert await parts.ledger.unannounced() == []
    again = await parts.start()
    await again.looks_after()
    assert len(parts.announced) == copies


async def test_a_milestone_that_only_postgres_knows_is_announced_before_its_petition_is_known(parts: Parts) -> None:
    await parts.decided(*facts(1, 2, 3, 4, 5))
    await parts.ledger.record_milestone(Reached(PATH, 4, 5, 5, NOON))
    await parts.ledger.record_milestone(Reached(FERRY, 4, 5, 5, NOON))
    parts.catalogue.remove(PATH)
    process = await parts.start(HERE)
    await process.looks_after()
    assert parts.announced == [(PATH, 4)], "that of the other partition is another's"


async def test_a_milestone_added_below_the_count_is_announced_without_another_signature(parts: Parts) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1, 2, 3)))
    await process.looks_after()
    parts.catalogue.apply(petition(PATH, milestones=[2, 3]))
    await process.handler.on_petition_change(petition(PATH, milestones=[2, 3]))
    await process.looks_after()
    assert parts.announced == [(PATH, 2), (PATH, 3)]


async def test_what_a_late_owner_left_is_found_after_a_while(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1)))
    await process.looks_after()
    await process.snapshots.flush()
    before = len(parts.producer.published)
    await parts.decided(*facts(2, 3, 4, 5))
    await parts.ledger.record_milestone(Reached(PATH, 4, 5, 5, NOON))  # a zombie did, and died
    await process.looks_after()
    await process.snapshots.flush()
    assert len(parts.producer.published) == before
    monkeypatch.setattr(watch, "_TELL_AGAIN_SECONDS", 0.0)
    await process.looks_after()
    await process.snapshots.flush()
    assert parts.announced == [(PATH, 4)]
    assert [topic for topic, _ in parts.producer.published[before + 1 :]] == [TALLIES_UPDATED.name]


async def test_what_the_watch_could_not_do_it_does_the_next_time(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    await parts.decided(*facts(1, 2, 3, 4, 5))
    await parts.ledger.record_milestone(Reached(PATH, 4, 5, 5, NOON))
    process = await parts.start()
    for what, name in ((TallyStore, "apply"), (Ledger, "unannounced"), (Ledger, "record_milestone")):
        with monkeypatch.context() as away:
            away.setattr(what, name, _away)
            with pytest.raises(ConnectionError):
                await process.looks_after()
    await process.looks_after()
    assert sorted(parts.announced) == [(PATH, 2), (PATH, 4)]


async def _away(*_: object) -> None:
    raise ConnectionError("away")


async def test_milestones_reached_by_a_rebuild_are_announced_though_its_batch_failed(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await parts.start()
    await process.takes(await parts.decided(*facts(1)))
    await process.looks_after()
    await parts.decided(*facts(2, 3))
    await parts.redis.flushdb()
    with monkeypatch.context() as away:
        away.setattr(TallyStore, "apply", _away)
        with pytest.raises(ConnectionError):
            await process.takes(facts(2))
    await process.looks_after()
    assert parts.announced == [(PATH, 2)]
