"""A connection to notify's tables, and how it fails when PostgreSQL goes away."""

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
        # PostgreSQL has told an idle connection that it shuts down and has not closed it yet. asyncpg has no better
        # name for using it in that moment; a moment later it would be a lost connection.
        if "another operation" not in str(error) and "failed" not in str(error):
            raise
        raise ConnectionError("PostgreSQL is closing the connection") from error
