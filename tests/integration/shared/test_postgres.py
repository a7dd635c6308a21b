"""The pool that every service uses, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from deploy.local.parts.postgres import Postgres
from shared import postgres as shared_postgres
from shared.postgres import Database
from shared.runtime.failures import is_transient


@pytest.fixture
async def databases(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Database, Database]]:
    """The pools of two processes, with little patience for one that stops in a transaction."""
    monkeypatch.setattr(shared_postgres, "_SILENT_SECONDS", 1)
    both = Database(postgres.url, application="zombie"), Database(postgres.url, application="successor")
    for database in both:
        await database.open()
    await both[0].pool.execute("CREATE TABLE held (id integer PRIMARY KEY)")
    yield both
    await both[1].pool.execute("DROP TABLE held")
    for database in both:
        await database.close()


async def stops_in_a_transaction(zombie: Database, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Write in a transaction, stop until `meanwhile` is done, and go on."""
    async with zombie.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO held VALUES (1)")
        async with asyncio.timeout(60):
            await meanwhile()
        await connection.execute("INSERT INTO held VALUES (2)")


async def test_a_process_that_stops_in_a_transaction_holds_nobody_up_for_long_and_recovers_when_it_goes_on(
    databases: tuple[Database, Database],
) -> None:
    zombie, successor = databases
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
        await stops_in_a_transaction(zombie, lambda: successor.pool.execute("INSERT INTO held VALUES (1)"))

    assert is_transient(caught.value), "the batch is decided again"
    written = await zombie.pool.fetch("SELECT id FROM held")
    assert [row["id"] for row in written] == [1], "the successor's; and by then the zombie has a connection again"
