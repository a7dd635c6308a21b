"""An ingest of a test module's own, and a petition of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from shared.kafka.apply_topics import apply_topics
from tests.support.running_ingest import Ingest, running_ingest


@pytest.fixture(scope="module")
async def postgres_url(postgres: Postgres) -> str:
    url = await postgres.create_database(f"ingest_tests_{uuid4().hex[:8]}")
    await migrate(url)
    return url


@pytest.fixture(scope="module")
async def brokers(kafka: KafkaBroker) -> KafkaBroker:
    """Kafka, with the topics."""
    await apply_topics(kafka.bootstrap_servers)
    return kafka


@pytest.fixture(scope="module")
async def ingest(
    brokers: KafkaBroker, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    log_dir = tmp_path_factory.mktemp("ingest")
    async with running_ingest(
        brokers, postgres_url=postgres_url, log_dir=log_dir, INGEST_CORS_ORIGINS="https://partner.example"
    ) as running:
        yield running


@pytest.fixture
async def petition(ingest: Ingest) -> str:
    """A petition of the test's own."""
    petition_id = f"petition-{uuid4().hex[:12]}"
    await ingest.start_petition(petition_id)
    return petition_id
