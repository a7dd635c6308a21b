"""An owner of two petitions that has counted, on real Valkey and PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from shared.postgres import Database
from tests.integration.tally.test_tally_healing import HERE, THERE, Parts, Process, facts
from tests.support.databases import database_named, redis_numbered
from tests.support.signing import FERRY


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, f"tally_impossible_{uuid4().hex[:8]}") as database:
        yield database


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with redis_numbered(valkey, 11) as client:
        yield client


@pytest.fixture
async def parts(redis: Redis, database: Database) -> Parts:
    await database.pool.execute(
        "DELETE FROM ledger; DELETE FROM milestones; DELETE FROM redis_witness; DELETE FROM tally_epochs"
    )
    return Parts(redis, database)


@pytest.fixture
async def process(parts: Parts) -> Process:
    """An owner of both petitions that has counted four signatures of each."""
    process = await parts.start(HERE, THERE)
    await process.looks_after()
    await process.takes(await parts.decided(*facts(1, 2, 3, 4), *facts(5, 6, 7, 8, petition_id=FERRY)))
    await process.looks_after()
    await process.snapshots.flush()
    return process
