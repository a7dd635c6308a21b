"""The whole system, started once for all integration tests; each test uses petitions of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from deploy.local.stack import Stack
from tests.integration.system import System


@pytest.fixture(scope="session")
async def running_stack(*, apache_is_here: bool, parts_dir: Path) -> AsyncIterator[Stack]:
    """All four services on real parts."""
    stack = Stack(
        broker="apache" if apache_is_here else "embedded",
        state_dir=parts_dir / "system",
        environ={},
        service_environment={
            "NOTIFY_COALESCE_SECONDS": "1",
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "INGEST_CLIENT_RATE": "off",
            "VERIFY_MAX_RECORDS": "300",  # small batches: a kill then always hits between some of them
            "TALLY_MAX_RECORDS": "300",
        },
    )
    async with stack:
        yield stack


@pytest.fixture
async def system(running_stack: Stack) -> AsyncIterator[System]:
    """The system, ready, with all of its services running."""
    for process in running_stack.processes:
        if not process.running:
            await process.start()
    database = await asyncpg.create_pool(running_stack.environment["POSTGRES_URL"], min_size=0, max_size=2)
    async with httpx.AsyncClient(timeout=30) as http:
        system = System(running_stack, http, database)
        await system.is_ready()
        yield system
    await database.close()
