"""Several who decide the same lane at once: positions have no gaps, and nothing is decided twice."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from deploy.local.parts.postgres import Postgres
from services.verify.store import LaneTaken, VerifyStore, signing, transaction
from shared.postgres import Database
from tests.integration.verify.verifying import apply, empty, lane, ledger, states, told
from tests.support.databases import database_named
from tests.support.signing import sign
from tests.support.turns import Actor, turn


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "verify_races", deadlock_timeout="10ms") as database:
        yield database


@pytest.fixture
async def store(database: Database) -> VerifyStore:
    await empty(database)
    return VerifyStore(database)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before each part of a transaction, so that another one may come in between."""
    monkeypatch.setattr(signing, "_insert_signatures", _after_a_turn(signing._insert_signatures))
    for name in ("append", "replayed"):
        monkeypatch.setattr(transaction, name, _after_a_turn(getattr(transaction, name)))


def _after_a_turn(call: Any) -> Any:
    async def turned(*arguments: Any) -> Any:
        await turn()
        return await call(*arguments)

    return turned


@pytest.mark.usefixtures("turns")
async def test_who_comes_to_a_signature_that_another_is_deciding_waits_and_finds_it_decided(
    store: VerifyStore, database: Database
) -> None:
    async def first() -> None:
        await apply(store, lane(sign(1), sign(2)))

    one = Actor(first)
    for _ in range(3):
        await one.step()  # up to after its append, which is not committed yet
    other = asyncio.create_task(apply(VerifyStore(database), lane(sign(3), sign(1), first=2)))
    await asyncio.sleep(0.05)
    assert not other.done()
    while not one.ended:
        await one.step()
    assert told(await other) == [(1, "verified 1"), (3, "verified 3")]
    assert [row[:3] for row in await ledger(database)] == [(0, 1, 1), (0, 2, 2), (0, 3, 3)]


@pytest.mark.usefixtures("turns")
async def test_a_lane_that_another_wrote_to_meanwhile_is_taken_and_then_found_decided(
    store: VerifyStore, database: Database
) -> None:
    async def first() -> None:
        await apply(store, lane(sign(1), sign(2)))

    one = Actor(first)
    for _ in range(3):
        await one.step()
    batch = lane(sign(3), sign(4), first=2)  # nothing in common with the first: only the position stops it
    other = asyncio.create_task(apply(VerifyStore(database), batch))
    await asyncio.sleep(0.05)
    assert not other.done(), "it waits for what becomes of the position"
    while not one.ended:
        await one.step()
    with pytest.raises(LaneTaken):
        await other
    assert await states(database) == {1: "verified", 2: "verified"}, "nothing of the later batch is left"
    decided = await apply(VerifyStore(database), [*lane(sign(1), sign(2)), *batch])
    assert told(decided) == [(1, "verified 1"), (2, "verified 2"), (3, "verified 3"), (4, "verified 4")]
    assert decided.replays == {UUID(int=1), UUID(int=2)}


@pytest.mark.usefixtures("turns")
async def test_a_killed_transaction_leaves_the_lane_to_the_next(store: VerifyStore, database: Database) -> None:
    async def killed() -> None:
        await apply(store, lane(sign(1), sign(2)))

    for steps in range(1, 4):
        one = Actor(killed)
        for _ in range(steps):
            await one.step()
        await one.kill()
        assert await ledger(database) == []
        assert await states(database) == {}
    assert told(await apply(store, lane(sign(1), sign(2)))) == [(1, "verified 1"), (2, "verified 2")]


@pytest.mark.usefixtures("turns")
async def test_many_who_race_for_one_lane_leave_no_position_out_and_take_none_twice(
    store: VerifyStore, database: Database
) -> None:
    taken = 0
    for seed in range(12):
        await empty(database)
        taken += await _race(store, database, Random(seed))
    assert taken > 0, "some of them collided"


async def _race(store: VerifyStore, database: Database, random: Random) -> int:
    """Worse than any rebalance: everybody decides any piece of the lane, at the same time, until all is decided."""
    records = lane(*(sign(number, signer=random.randrange(12)) for number in range(1, 17)))
    taken = 0

    async def decide_pieces() -> None:
        nonlocal taken
        for _ in range(4):
            start = random.randrange(len(records))
            piece = records[start : start + random.randint(1, 6)]
            while True:
                await turn()
                try:
                    await apply(store, piece)
                    break
                except LaneTaken:
                    taken += 1
                except asyncpg.DeadlockDetectedError:
                    continue

    actors = [Actor(decide_pieces, blocks=True) for _ in range(3)]
    async with asyncio.timeout(30):
        while going := [actor for actor in actors if not actor.ended]:
            await random.choice(going).step()
    await apply(store, records)
    found = await ledger(database)
    assert [position for _, position, *_ in found] == list(range(1, len(found) + 1))
    assert len({signature for _, _, signature, *_ in found}) == len(found)
    assert len(found) == len({one.signer_key for one in records}), "every signer stands once"
    assert set(await states(database)) == set(range(1, 17))
    again = await apply(store, records)
    assert [row[:2] for row in found] == [(row.lane, row.position) for row in again.ledger]
    return taken
