"""Two instances of ingest for administrators who are bound, and a petition with everything set."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local.parts.kafka import KafkaBroker
from tests.integration.ingest.administrators.administering import (
    AS_KIM,
    GUARDED,
    TOKENS,
    new_id,
)
from tests.support.running_ingest import Ingest, running_ingest


@pytest.fixture(scope="module")
async def ingest(
    brokers: KafkaBroker, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    log_dir = tmp_path_factory.mktemp("administrators")
    async with running_ingest(brokers, postgres_url=postgres_url, log_dir=log_dir, **TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
async def other(
    brokers: KafkaBroker, ingest: Ingest, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    """Another instance, beside `ingest`."""
    log_dir = tmp_path_factory.mktemp("administrators-other")
    async with running_ingest(brokers, postgres_url=postgres_url, log_dir=log_dir, **TOKENS) as running:
        yield running


@pytest.fixture
async def guarded(ingest: Ingest) -> str:
    """The address of a petition with every protection."""
    address = f"/v1/petitions/{new_id()}"
    assert (await ingest.http.put(address, json=GUARDED, headers=AS_KIM)).status_code == 201
    return address
