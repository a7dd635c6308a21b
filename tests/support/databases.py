"""Databases of one test module, in the PostgreSQL and the Valkey that all tests share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from deploy.migrations import migrate
from shared import redis as shared_redis
from shared.postgres import Database


@asynccontextmanager
async def database_named(postgres: Postgres, name: str, **settings: str) -> AsyncIterator[Database]:
    """A migrated database with a pool of twelve connections."""
    url = await postgres.create_database(name)
    await migrate(url)
    connection = await asyncpg.connect(url)
    for setting, value in {"synchronous_commit": "off", **settings}.items():
        await connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    await connection.close()
    database = Database(url, application="test", size=12)
    await database.open()
    yield database
    await database.close()


@asynccontextmanager
async def redis_numbered(valkey: Valkey, number: int) -> AsyncIterator[Redis]:
    """A client of one of the numbered databases; empty again afterwards."""
    client = shared_redis.connect(f"{valkey.url.removesuffix('/0')}/{number}")
    yield client
    await client.flushdb()
    await client.aclose()
