"""Random interleavings of verify's real parts: owners and zombies in each other's transactions, kills, replays.

Whatever happens, every submission has one outcome, and the topic has the ledger's rows in their order.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from deploy.local.parts.postgres import Postgres
from services.verify.deciding.rules import SubmittedCommand
from services.verify.store import signing, transaction
from shared.postgres import Database
from tests.integration.verify.verify_world import Instance, World
from tests.support.databases import database_named
from tests.support.turns import turn


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "verify_protocol", deadlock_timeout="10ms") as database:
        yield database


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a transaction too, the others may go on before every statement."""
    monkeypatch.setattr(signing, "_insert_signatures", _after_a_turn(signing._insert_signatures))
    for name in ("apply_changes", "append", "replayed"):
        monkeypatch.setattr(transaction, name, _after_a_turn(getattr(transaction, name)))


def _after_a_turn(call: Callable[..., Any]) -> Callable[..., Any]:
    async def turned(*arguments: Any) -> Any:
        await turn()
        return await call(*arguments)

    return turned


async def wrong_with(seed: int, database: Database, *, grown: bool = False) -> list[str]:
    await database.pool.execute("DELETE FROM ledger; DELETE FROM signatures; DELETE FROM erasures")
    return await World(seed, database, grown=grown).run()


@pytest.mark.parametrize("grown", [False, True])
async def test_every_submission_is_decided_once_and_told_in_order_whatever_happens_on_the_way(
    database: Database, *, grown: bool
) -> None:
    for seed in range(40):
        assert await wrong_with(seed, database, grown=grown) == [], f"seed {seed}"


def with_commits_before_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are committed before the facts are published."""
    decide = Instance.decide

    async def commit_first(self: Instance, batch: Sequence[SubmittedCommand], ends: list[int]) -> bool:
        if self.generation == self.world.generation:
            self.world.committed = ends
        return await decide(self, batch, ends)

    monkeypatch.setattr(Instance, "decide", commit_first)


def with_retries_in_place_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a command that is in a batch twice, the last place counts."""

    def last_of_each(submissions: Sequence[SubmittedCommand]) -> list[SubmittedCommand]:
        return list({one.event_id: one for one in submissions[::-1]}.values())[::-1]

    monkeypatch.setattr(transaction, "first_of_each", last_of_each)


def without_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided is not published again."""

    async def nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(transaction, "replayed", nothing)


@pytest.mark.parametrize(
    "broken", [with_commits_before_publishing, with_retries_in_place_of_the_first, without_replays]
)
async def test_a_protocol_that_is_broken_on_purpose_is_found_out(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    broken(monkeypatch)
    for seed in range(80):
        if await wrong_with(seed, database):
            return
    pytest.fail("80 runs, and nothing was wrong")
