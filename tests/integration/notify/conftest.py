"""A notify of the test's own, on a database of the module's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.parts.postgres import Postgres
from tests.integration.notify.notify_desk import Desk, new_database, open_desk


@pytest.fixture(scope="module")
async def database_url(postgres: Postgres) -> str:
    return await new_database(postgres)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    async with open_desk(database_url) as desk:
        yield desk
