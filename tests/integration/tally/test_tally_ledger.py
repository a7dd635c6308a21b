"""tally's queries of the ledger, and its milestones, in a real PostgreSQL."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from deploy.local.parts.postgres import Postgres
from services.tally.counting.ledger import Ledger
from services.tally.counting.tally import Reached, TallyState
from shared.contract.events import minute_of
from shared.postgres import Database
from tests.integration.tally.tallying import put_into_ledger
from tests.support.databases import database_named
from tests.support.signing import FERRY, NOON, PATH, fact


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "tally_ledger") as database:
        yield database


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    await database.pool.execute("DELETE FROM ledger; DELETE FROM milestones; DELETE FROM redis_witness")
    return Ledger(database)


async def test_the_ledger_is_summed_up_to_any_fences(ledger: Ledger, database: Database) -> None:
    await put_into_ledger(database, fact(1), fact(3), fact(5, -1), fact(7, country="BE", minute=1))
    await put_into_ledger(
        database, fact(2, lane=2), fact(4, lane=2), fact(2, petition_id=FERRY), fact(4, petition_id=FERRY)
    )
    minute = minute_of(NOON)
    whole = TallyState(4, 6, {0: 7, 2: 4}, {"NL": 3, "BE": 1}, {minute: 3, minute + 1: 1})
    assert await ledger.state(PATH) == whole
    assert await ledger.state_at(PATH, {0: 99, 2: 99}) == whole
    assert await ledger.state_at(PATH, {0: 4, 2: 0}) == TallyState(2, 2, {0: 3}, {"NL": 2}, {minute: 2})
    assert await ledger.state_at(PATH, {}) == TallyState(0, 0, {}, {}, {})


async def test_the_ledger_says_how_much_is_still_to_be_counted(ledger: Ledger, database: Database) -> None:
    await put_into_ledger(database, fact(1), fact(3), fact(5, -1), fact(2, lane=2), fact(4, petition_id=FERRY))
    fences: list[dict[int, int]] = [{}, {0: 3}, {0: 5}, {0: 4, 2: 2}, {0: 5, 2: 9}]
    assert [await ledger.beyond(PATH, known) for known in fences] == [4, 2, 1, 1, 0]


async def test_the_ledger_knows_whether_anything_came_before(ledger: Ledger, database: Database) -> None:
    await put_into_ledger(database, fact(3), fact(5), fact(2, lane=2), fact(1, petition_id=FERRY))
    nothing: list[dict[int, int]] = [{0: 3}, {2: 2}, {7: 9}, {0: 3, 2: 2}, {}]
    something: list[dict[int, int]] = [{0: 4}, {0: 5}, {2: 3}, {0: 3, 2: 3}, {0: 5, 7: 1}]
    assert not any([await ledger.has_earlier(PATH, first) for first in nothing])
    assert all([await ledger.has_earlier(PATH, first) for first in something])


async def test_the_ledger_names_every_petition_once(ledger: Ledger, database: Database) -> None:
    assert await ledger.petitions() == []
    names = [f"petition-{number}" for number in range(30)]
    for place, name in enumerate(names):
        await put_into_ledger(database, *(fact(3 * place + number, petition_id=name) for number in range(1, 4)))
    assert await ledger.petitions() == sorted(names)


async def test_a_position_of_a_lane_can_be_taken_once_only(ledger: Ledger, database: Database) -> None:
    await put_into_ledger(database, fact(1), fact(1, lane=1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await put_into_ledger(database, fact(1, petition_id=FERRY))
    assert await ledger.petitions() == [PATH]


async def test_a_milestone_stays_as_it_was_first_reached(ledger: Ledger) -> None:
    first, later = Reached(PATH, 4, 4, 4, NOON), Reached(PATH, 4, 9, 11, NOON)
    assert await ledger.record_milestone(first) == first
    assert await ledger.record_milestone(later) == first
    assert await ledger.unannounced() == [first]
    await ledger.mark_announced(first)
    assert await ledger.record_milestone(later) is None
    assert await ledger.unannounced() == []


async def test_the_last_witness_of_a_partition_is_kept(ledger: Ledger) -> None:
    await ledger.set_witness([1, 2], "one")
    await ledger.set_witness([2, 3], "other")
    assert await ledger.witnesses([1, 2, 4]) == {1: "one", 2: "other"}
    await ledger.set_witness([], "nobody")
    assert await ledger.witnesses([]) == {}
