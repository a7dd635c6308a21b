"""Milestones are announced once, snapshots no more often than asked for and never backwards."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import Reached
from shared.contract.events import MilestoneReached, TallyUpdated
from shared.contract.identity import milestone_id
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED
from shared.kafka.records.record import Record
from tests.support.signing import FERRY, NOON, PATH, MemoryProducer


class Rows(Ledger):
    """The milestones table in memory."""

    def __init__(self, log: list[str]) -> None:
        self.rows: dict[tuple[str, int], Reached] = {}
        self.announced: set[tuple[str, int]] = set()
        self.log = log
        self.ever = 1_000_000

    async def is_announced(self, petition_id: str, threshold: int) -> bool:
        return (petition_id, threshold) in self.announced

    async def ever_counted(self, petition_id: str) -> tuple[int, int]:
        return self.ever, self.ever

    async def record_milestone(self, reached: Reached) -> Reached | None:
        await asyncio.sleep(0)
        self.log.append(f"recorded {reached.threshold}")
        key = reached.petition_id, reached.threshold
        first = self.rows.setdefault(key, reached)
        return None if key in self.announced else first

    async def mark_announced(self, reached: Reached) -> None:
        await asyncio.sleep(0)
        self.log.append(f"row marked {reached.threshold}")
        self.announced.add((reached.petition_id, reached.threshold))


class Marks(TallyStore):
    """Counts and milestones' marks in memory."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.log = [] if log is None else log
        self.counts: dict[str, tuple[int, int]] = {}
        self.reads: list[list[str]] = []

    def put(self, petition_id: str, count: int, revision: int | None = None) -> None:
        self.counts[petition_id] = (count, count if revision is None else revision)

    async def mark_announced(self, petition_id: str, thresholds: Iterable[int]) -> None:
        self.log += [f"redis marked {threshold}" for threshold in thresholds]

    async def forget_milestone(self, petition_id: str, threshold: int) -> None:
        self.log.append(f"redis forgot {threshold}")

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        self.reads.append(list(petition_ids))
        found = {petition_id: self.counts.get(petition_id, (0, 0)) for petition_id in petition_ids}
        return {
            petition_id: TallyUpdated(
                petition_id=petition_id,
                count=count,
                revision=revision,
                countries={},
                minutes={},
                earlier=count,
                updated_at=NOON,
            )
            for petition_id, (count, revision) in found.items()
        }


class Milestones:
    """An announcer, and what it did, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fails: Exception | None = None
        self.producer = MemoryProducer(before=self._before)
        self.rows = Rows(self.log)
        self.announcer = MilestoneAnnouncer(
            ledger=self.rows,
            store=Marks(self.log),
            producer=self.producer,
            metrics=TallyMetrics(CollectorRegistry()),
        )

    async def _before(self, _: str, record: Record) -> None:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        self.log.append(f"published {MilestoneReached.model_validate_json(record.value or b'').threshold}")


def reached(threshold: int, *, petition_id: str = PATH, count: int | None = None) -> Reached:
    return Reached(petition_id, threshold, threshold if count is None else count, threshold + 5, NOON)


def test_a_milestones_event_has_one_id_for_ever() -> None:
    assert milestone_id(PATH, 1000) == UUID("fe3847c7-9e25-5ab1-b449-50913bbbea48")
    assert len({milestone_id(petition, n) for petition in (PATH, FERRY) for n in (1, 10, 100)}) == 6


async def test_a_milestone_is_recorded_published_and_only_then_marked() -> None:
    tested = Milestones()
    await tested.announcer.announce([reached(10)])
    assert tested.log == ["recorded 10", "published 10", "row marked 10", "redis marked 10"]


async def test_milestones_are_announced_lowest_first() -> None:
    tested = Milestones()
    await tested.announcer.announce([reached(100), reached(10)])
    assert [line for line in tested.log if line.startswith("published")] == ["published 10", "published 100"]


async def test_a_milestone_that_was_announced_before_redis_was_lost_is_only_marked() -> None:
    tested = Milestones()
    await tested.announcer.announce([reached(10)])
    tested.log.clear()
    await tested.announcer.announce([reached(10, count=12)])
    assert tested.log == ["redis marked 10"]


async def test_a_milestone_that_the_ledger_does_not_prove_is_not_announced() -> None:
    tested = Milestones()
    unproved: list[str] = []
    tested.announcer.on_unproved = unproved.append
    tested.rows.ever = 9
    await tested.announcer.announce([reached(10)])
    assert tested.log == ["redis forgot 10"]
    assert unproved == [PATH]


async def test_a_milestone_that_kafka_did_not_take_stays_to_be_announced_as_first_recorded() -> None:
    tested = Milestones()
    tested.fails = KafkaConnectionError("away")
    with pytest.raises(KafkaConnectionError):
        await tested.announcer.announce([reached(10)])
    assert tested.log == ["recorded 10"]
    tested.fails = None
    await tested.announcer.announce([reached(10, count=15)])
    (told,) = tested.producer.on(MILESTONES_REACHED.name)
    assert MilestoneReached.model_validate_json(told.value or b"").count == 10


async def test_the_batch_and_the_watch_find_a_milestone_at_once_and_it_is_published_once() -> None:
    tested = Milestones()
    await asyncio.gather(*(tested.announcer.announce([reached(10)]) for _ in range(3)))
    assert tested.log.count("published 10") == 1


async def test_the_event_of_a_milestone_is_the_same_at_every_publication() -> None:
    tested = Milestones()
    for _ in range(2):
        await tested.announcer.announce([reached(10)])
        tested.rows.announced.clear()  # killed after Kafka had it, before the row was marked
    first, second = tested.producer.on(MILESTONES_REACHED.name)
    assert first == second
    assert first.key == PATH.encode()
    assert dict(first.headers)["ce_id"] == str(milestone_id(PATH, 10)).encode()


# ------------------------------------------------------------------------------------------------------ snapshots


class Snapshots:
    """A snapshot announcer and what it published: (petition, count, revision)."""

    def __init__(self, interval_seconds: float = 0.001) -> None:
        self.store = Marks()
        self.fails: Exception | None = None
        self.registry = CollectorRegistry()
        self.producer = MemoryProducer(before=self._before)
        self.announcer = SnapshotAnnouncer(
            store=self.store,
            producer=self.producer,
            metrics=TallyMetrics(self.registry),
            interval_seconds=interval_seconds,
        )

    async def _before(self, _: str, __: Record) -> None:
        if self.fails is not None:
            raise self.fails

    @property
    def published(self) -> list[tuple[str, int, int]]:
        told = [
            TallyUpdated.model_validate_json(record.value or b"") for record in self.producer.on(TALLIES_UPDATED.name)
        ]
        return [(one.petition_id, one.count, one.revision) for one in told]

    async def flush(self, *changed: str) -> None:
        self.announcer.changed(changed)
        await self.announcer.flush()


async def test_many_changes_of_a_petition_are_one_snapshot_of_what_it_is_now() -> None:
    tested = Snapshots()
    for count in (1, 2, 3):
        tested.store.put(PATH, count)
        tested.announcer.changed([PATH])
    await tested.announcer.flush()
    assert tested.published == [(PATH, 3, 3)]
    await tested.announcer.flush()
    assert tested.store.reads == [[PATH]], "nothing changed since, nothing is read"


async def test_snapshots_of_several_petitions_are_read_together() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 1)
    tested.store.put(FERRY, 2)
    await tested.flush(PATH, FERRY, PATH)
    assert tested.store.reads == [sorted([PATH, FERRY])]
    assert sorted(tested.published) == sorted([(PATH, 1, 1), (FERRY, 2, 2)])


async def test_a_count_that_fell_is_published_and_the_same_revision_is_not_published_again() -> None:
    tested = Snapshots()
    for count, revision in ((5, 5), (4, 6), (4, 6)):
        tested.store.put(PATH, count, revision)
        await tested.flush(PATH)
    assert tested.published == [(PATH, 5, 5), (PATH, 4, 6)]


async def test_what_redis_shows_after_it_lost_state_is_not_published() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 900)
    await tested.flush(PATH)
    tested.store.put(PATH, 0)
    await tested.flush(PATH)
    assert tested.published == [(PATH, 900, 900)]
    tested.store.put(PATH, 901)
    await tested.flush(PATH)
    assert tested.published[-1] == (PATH, 901, 901)


async def test_the_first_snapshot_of_a_petition_says_that_nobody_signed_yet() -> None:
    tested = Snapshots()
    await tested.flush(PATH)
    assert tested.published == [(PATH, 0, 0)]


async def test_a_new_owner_publishes_whatever_it_finds() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 7)
    await tested.flush(PATH)
    tested.announcer.forget()
    await tested.flush(PATH)
    assert tested.published == [(PATH, 7, 7), (PATH, 7, 7)]


async def test_what_is_told_again_is_never_older() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 7)
    await tested.flush(PATH)
    tested.announcer.tell_again()
    tested.store.put(PATH, 5)
    await tested.flush(PATH)
    assert tested.published == [(PATH, 7, 7)]
    tested.store.put(PATH, 7)
    await tested.flush(PATH)
    assert tested.published == [(PATH, 7, 7), (PATH, 7, 7)]


async def test_what_could_not_be_published_is_published_with_the_next() -> None:
    tested = Snapshots()
    tested.fails = KafkaConnectionError("away")
    with pytest.raises(KafkaConnectionError):
        await tested.flush(PATH)
    tested.fails = None
    tested.store.put(PATH, 3)
    await tested.announcer.flush()
    assert tested.published == [(PATH, 3, 3)]


async def test_outages_only_delay_snapshots() -> None:
    tested = Snapshots()
    tested.fails = KafkaConnectionError("away")
    running = asyncio.create_task(tested.announcer.run())
    tested.announcer.changed([PATH])
    async with asyncio.timeout(60):
        while not tested.registry.get_sample_value("groundswell_tally_snapshots_failed_total"):
            await asyncio.sleep(0.001)
        tested.fails = None
        while not tested.published:
            await asyncio.sleep(0.001)
    running.cancel()
    assert tested.published == [(PATH, 0, 0)]


async def test_a_bug_ends_the_loop() -> None:
    tested = Snapshots()
    tested.fails = KeyError("a bug")
    tested.announcer.changed([PATH])
    async with asyncio.timeout(60):
        with pytest.raises(KeyError):
            await tested.announcer.run()


async def test_a_process_that_stops_leaves_to_the_next_owner_what_it_cannot_publish() -> None:
    tested = Snapshots()
    tested.fails = KafkaConnectionError("away")
    tested.announcer.changed([PATH])
    await tested.announcer.last_flush()
    tested.fails = KeyError("a bug")
    with pytest.raises(KeyError):
        await tested.announcer.last_flush()
    tested.fails = None
    await tested.announcer.last_flush()
    assert tested.published == [(PATH, 0, 0)]


async def test_snapshots_of_one_petition_keep_their_distance() -> None:
    tested = Snapshots(interval_seconds=0.05)
    running = asyncio.create_task(tested.announcer.run())
    started = asyncio.get_running_loop().time()
    count = 0
    async with asyncio.timeout(60):
        while len(tested.published) < 3:
            count += 1
            tested.store.put(PATH, count)
            tested.announcer.changed([PATH])
            await asyncio.sleep(0.001)
    running.cancel()
    assert asyncio.get_running_loop().time() - started >= timedelta(milliseconds=150).total_seconds() * 0.95


async def test_a_snapshot_that_an_older_one_overtook_is_published_again() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 500)
    tested.announcer.changed([PATH])
    await tested.announcer.flush()
    tested.announcer.overtaken(PATH, (0, 100))
    await tested.announcer.flush()
    assert tested.published == [(PATH, 500, 500), (PATH, 500, 500)]


async def test_an_older_snapshot_is_not_answered_while_redis_has_nothing_newer() -> None:
    tested = Snapshots()
    tested.store.put(PATH, 100)
    tested.announcer.overtaken(PATH, (0, 100))
    await tested.announcer.flush()
    assert tested.published == []
