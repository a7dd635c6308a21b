"""The mutants break what they claim, and only that; a patch that no longer fits raises an error."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from services.tally.counting import count, handlers, healing
from services.tally.counting import step as counting
from services.tally.counting.redis_store import TallyStore
from services.verify.store import VerifyStore
from shared import redis as shared_redis
from shared.postgres import Database
from tests.faults.mutants import mutant as mutant_module
from tests.faults.mutants import mutants
from tests.faults.mutants.directed import directed
from tests.faults.mutants.mutant import Mutant, PatchMisfit, replace, without
from tests.faults.mutants.play import Commands, Outcome
from tests.integration.verify.verifying import apply, lane, told
from tests.support.databases import database_named
from tests.support.signing import as_read, fact, sign

Broken = dict[tuple[Any, str], Any]
"""The original value of each patched place, an owner and a name."""


@pytest.fixture
def product(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """The places that a test breaks. All are restored afterwards."""
    broken: Broken = {}

    def put(owner: Any, name: str, value: Any) -> None:
        broken.setdefault((owner, name), vars(owner)[name])
        monkeypatch.setattr(owner, name, value)

    monkeypatch.setattr(mutant_module, "setattr", put, raising=False)
    return broken


def _break(mutant: Mutant) -> None:
    if mutant.points is not None:
        mutant.points()
    if mutant.break_it is not None:
        mutant.break_it()


async def _break_schema(database: Database, mutant: Mutant) -> None:
    assert mutant.schema is not None
    await database.pool.execute(mutant.schema)


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, f"mutants_{uuid4().hex}") as database:
        yield database


@pytest.mark.parametrize("name", sorted(mutants()))
def test_what_a_mutant_patches_is_there_and_is_whole_again_afterwards(
    name: str, product: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(mutants()[name])
    changed = [place for place, was in product.items() if vars(place[0])[place[1]] is not was]
    assert changed, "a mutant changes the product"
    monkeypatch.undo()
    assert [place for place, was in product.items() if vars(place[0])[place[1]] is not was] == []


def test_every_mutant_has_a_schedule() -> None:
    schedules = directed()
    assert schedules.keys() == mutants().keys()
    assert all(schedule.faults for schedule in schedules.values())


def test_a_patch_of_something_that_is_not_there_is_refused() -> None:
    with pytest.raises(PatchMisfit, match="has no counting any more"):
        replace(handlers, "counting", lambda was: was)
    with pytest.raises(PatchMisfit, match="0 times"):
        without("one line", "another line")
    with pytest.raises(PatchMisfit, match="2 times"):
        without("line line", "line")


@pytest.mark.usefixtures("product")
def test_without_a_fence_a_fact_that_was_counted_is_counted_again() -> None:
    facts = as_read(fact(1), fact(2))
    assert counting.step(facts, {0: 2}).changes == 0
    _break(mutants()["no-fence"])
    assert vars(count)["step"](facts, {0: 2}).changes == 2
    script = TallyStore(Redis())._apply.script
    assert "moved = true" not in str(script)
    assert "if moved or " in str(script)


@pytest.mark.usefixtures("product")
async def test_a_blind_tally_finds_every_redis_the_same() -> None:
    _break(mutants()["redis-unnoticed"])
    blind = vars(healing)["identity"]
    assert blind is not shared_redis.identity
    assert await blind(Redis()) == await blind(Redis(db=1))


async def test_without_the_key_a_position_is_taken_twice(database: Database) -> None:
    async def ledger_rows() -> int:
        await database.pool.execute(
            "INSERT INTO ledger SELECT 7, 1, gen_random_uuid(), 'path', gen_random_uuid(), 'verified', 1, 'NL', now(), now()"
        )
        return int(await database.pool.fetchval("SELECT count(*) FROM ledger WHERE lane = 7 AND position = 1"))

    assert await ledger_rows() == 1
    with pytest.raises(asyncpg.UniqueViolationError):
        await ledger_rows()
    await _break_schema(database, mutants()["no-lane-key"])
    assert await ledger_rows() == 2
    with pytest.raises(asyncpg.UndefinedObjectError):
        await _break_schema(database, mutants()["no-lane-key"])


@pytest.mark.usefixtures("product")
async def test_one_who_checks_then_inserts_turns_away_whom_it_has_seen(database: Database) -> None:
    mutant = mutants()["check-then-insert"]
    _break(mutant)
    await _break_schema(database, mutant)
    store = VerifyStore(database)
    batch = lane(sign(1, signer=1), sign(2, signer=1), sign(3, signer=2))
    for _ in range(2):  # as in the product, without concurrent decisions
        decided = await apply(store, batch)
        assert told(decided) == [(1, "verified 1"), (2, "verified 3")]
        assert [refused.submission.event_id for refused in decided.refused] == [UUID(int=2)]
    decided = await apply(store, lane(sign(4, signer=2), first=3))
    assert [refused.submission.event_id for refused in decided.refused] == [UUID(int=4)]


def test_a_mutant_is_found_only_by_what_it_was_expected_to_break() -> None:
    mutant = mutants()["no-fence"]
    assert not Outcome(mutant, (), violations=[]).ok
    assert not Outcome(mutant, (), violations=["services that are not ready: 1"]).ok
    assert Outcome(mutant, (), violations=["counts"], caught_by="counts").ok
    assert not Outcome(mutant, (), violations=["counts"], caught_by="counts", control=["counts"]).ok


@pytest.mark.parametrize(
    ("name", "violation"),
    [
        (
            "no-fence",
            "counts of run002-hot that differ from the 2,208 verified signatures: 3 (Redis has 2,383, the API has 2,383)",
        ),
        ("redis-unnoticed", "counts of run002-cold that differ from the 50 verified signatures: 1 (Redis has 0)"),
    ],
)
def test_a_lost_count_and_a_double_one_are_told_apart(name: str, violation: str) -> None:
    assert [found for found, schedule in directed().items() if schedule.expected(violation)] == [name]


def test_only_the_mutants_own_service_is_started_as_the_mutant() -> None:
    commands = Commands(mutants()["no-lane-key"])
    product = [sys.executable, "-m", "services.tally"]
    assert commands("tally") == product
    run = [sys.executable, "-m", "tests.faults.mutants.run", "no-lane-key", "verify"]
    assert commands("verify") == [*run, "--whole"]
    commands.whole = False
    assert commands("verify") == run
    commands.mutant = None
    assert commands("verify") == [sys.executable, "-m", "services.verify"]
