"""A connection to notify's tables, with one error for a PostgreSQL that goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from shared.postgres import Connection, Database

AnyConnection = Connection | PoolConnectionProxy


@asynccontextmanager
async def connected(database: Database) -> AsyncIterator[AnyConnection]:
    """A connection of the pool.

    Raises:
        ConnectionError: PostgreSQL is away.
    """
    try:
        async with database.pool.acquire() as connection:
            yield connection
    except asyncpg.InternalClientError as error:
        # PostgreSQL has announced its shutdown on an idle connection and not closed it yet. asyncpg raises this error for
        # its use at that moment; a moment later it would be a lost connection.
        if "another operation" not in str(error) and "failed" not in str(error):
            raise
        raise ConnectionError("PostgreSQL is closing the connection") from error
