"""Two instances of ingest for administrators who are bound, and a petition with everything set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from shared.kafka.apply_topics import apply_topics
from tests.integration.ingest.administrators.administering import (
    AS_KIM,
    GUARDED,
    TOKENS,
    new_id,
)
from tests.support.running_ingest import Ingest, running_ingest


@pytest.fixture(scope="module")
async def postgres_url(postgres: Postgres) -> str:
    url = await postgres.create_database(f"administrators_{uuid4().hex[:8]}")
    await migrate(url)
    return url


@pytest.fixture(scope="module")
async def ingest(
    kafka: KafkaBroker, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    await apply_topics(kafka.bootstrap_servers)
    log_dir = tmp_path_factory.mktemp("administrators")
    async with running_ingest(kafka, postgres_url=postgres_url, log_dir=log_dir, **TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
async def other(
    kafka: KafkaBroker, ingest: Ingest, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    """Another instance, beside `ingest`."""
    log_dir = tmp_path_factory.mktemp("administrators-other")
    async with running_ingest(kafka, postgres_url=postgres_url, log_dir=log_dir, **TOKENS) as running:
        yield running


@pytest.fixture
async def guarded(ingest: Ingest) -> str:
    """The address of a petition with every protection."""
    address = f"/v1/petitions/{new_id()}"
    assert (await ingest.http.put(address, json=GUARDED, headers=AS_KIM)).status_code == 201
    return address
