"""Random interleavings of tally's real parts: owners and zombies, kills, replays, and a Redis that loses state.

Whatever happens, the counts are the ledger's in the end. Broken on purpose, the protocol gives wrong counts here.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from services.tally.counting import count, healing
from services.tally.counting import step as counting
from services.tally.counting.facts import ReadFact
from services.tally.counting.healing import Healer
from services.tally.counting.step import Step
from services.tally.counting.tally import Applied, NotApplied, Swap, TallyState
from shared.contract.events import CountedFact
from shared.postgres import Database
from tests.integration.tally.tally_world import Instance, Turned, World, turned_identity
from tests.support.databases import database_named, redis_numbered


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "tally_protocol") as database:
        yield database


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with redis_numbered(valkey, 8) as client:
        yield client


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "identity", turned_identity)


async def wrong_with(seed: int, redis: Redis, database: Database) -> list[str]:
    await redis.flushdb()
    await database.pool.execute("DELETE FROM ledger; DELETE FROM milestones; DELETE FROM redis_witness")
    return await World(seed, redis, database).run()


@pytest.mark.parametrize("first", range(0, 120, 40))
async def test_counts_are_the_ledgers_whatever_happens_on_the_way(first: int, redis: Redis, database: Database) -> None:
    for seed in range(first, first + 40):
        assert await wrong_with(seed, redis, database) == [], f"seed {seed}"


def without_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts are counted whether or not they were counted before."""

    def count_all(facts: Sequence[ReadFact], fences: Mapping[int, int]) -> Step:
        part = counting.step(facts, fences)
        if any(expected == counting.UNKNOWN for expected, _ in part.lanes.values()):
            return part
        whole = counting.step(facts, dict.fromkeys(part.lanes, 0))
        return Step(part.lanes, whole.delta, whole.peak, whole.changes, whole.countries, whole.minutes)

    monkeypatch.setattr(count, "step", count_all)


def without_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild is swapped in although the stored tally is ahead of it."""
    swap_in = Turned.swap_in

    async def always(self: Turned, petition_id: str, state: TallyState, **_: Any) -> Swap:
        return await swap_in(self, petition_id, state, force=True)

    monkeypatch.setattr(Turned, "swap_in", always)
    monkeypatch.setattr(World, "weights", {**World.weights, "new_owner": 6, "kill_one": 1, "lose": 8})


def without_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """tally does not notice that it talks to another Redis."""

    async def ensure(*_: object) -> dict[str, TallyState]:
        return {}

    monkeypatch.setattr(Healer, "ensure", ensure)


def with_commits_before_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are committed before the batch is counted."""
    count = Instance._count

    async def commit_first(self: Instance, batch: list[CountedFact], position: int) -> bool:
        if self.generation == self.world.generation:
            self.world.committed = position + len(batch)
        return await count(self, batch, position)

    monkeypatch.setattr(Instance, "_count", commit_first)
    monkeypatch.setattr(World, "weights", {**World.weights, "kill_one": 8, "lose": 0})  # a rebuild would find it


def with_marks_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the call that reached a milestone returns it."""
    apply = Turned.apply
    told: set[tuple[str, int]] = set()

    async def once(self: Turned, steps: Sequence[tuple[str, Step, Sequence[int]]]) -> list[Applied | NotApplied]:
        replies = await apply(self, steps)
        return [reply if isinstance(reply, NotApplied) else self_once(reply) for reply in replies]

    def self_once(reply: Applied) -> Applied:
        fresh = tuple(one for one in reply.unannounced if (one.petition_id, one.threshold) not in told)
        told.update((one.petition_id, one.threshold) for one in fresh)
        return Applied(reply.count, reply.revision, fresh)

    monkeypatch.setattr(Turned, "apply", once)


@pytest.mark.parametrize(
    "broken", [without_fence, without_guard, without_witness, with_commits_before_counting, with_marks_told_once]
)
async def test_a_protocol_that_is_broken_on_purpose_is_found_out(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, redis: Redis, database: Database
) -> None:
    broken(monkeypatch)
    for seed in range(120):
        if await wrong_with(seed, redis, database):
            return
    pytest.fail("120 runs, and no count was wrong")
