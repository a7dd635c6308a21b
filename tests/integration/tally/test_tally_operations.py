"""Audit and rebuild as a program calls them: functions that answer, and print nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from deploy.local.parts.ports import free_port
from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from deploy.migrations import migrate
from services.tally import operations
from services.tally.operations import Announced, Counts, CountsAway
from tests.integration.tally.tallying import put_into_ledger
from tests.support.databases import redis_numbered
from tests.support.signing import FERRY, PATH, fact

NUMBER = 13


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with redis_numbered(valkey, NUMBER) as client:
        yield client


async def test_what_is_not_counted_is_found_rebuilt_and_proved(
    postgres: Postgres, valkey: Valkey, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await postgres.create_database(f"operations_{uuid4().hex[:8]}")
    await migrate(url)
    capsys.readouterr()
    async with Counts(redis_url=f"{valkey.url.removesuffix('/0')}/{NUMBER}", postgres_url=url) as counts:
        await put_into_ledger(counts._database, fact(1), fact(2), fact(3, petition_id=FERRY))
        rebuilt = await operations.rebuild(counts)
        assert {name: state.count for name, state in rebuilt.items()} == {PATH: 2, FERRY: 1}

        await redis.hset(f"tally:{{{PATH}}}", "count", "5")
        found = await operations.audit(counts, Announced({}, "Kafka is away"))
        assert (found.right, found.drift, found.not_compared) == (False, 3, "Kafka is away")
        assert [(one.petition_id, one.drift) for one in found.petitions] == [(FERRY, 0), (PATH, 3)]
        assert found.as_json()["announced_compared"] is False

        assert (await operations.rebuild(counts, [PATH], force=True))[PATH].count == 2
        found = await operations.audit(counts, Announced({}), [PATH])
        assert (found.right, len(found.petitions), found.as_json()["drift"]) == (True, 1, 0)
    assert capsys.readouterr().out == ""


async def test_counts_that_cannot_be_reached_say_why(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_CONNECT_SECONDS", 0.5)
    nowhere = Counts(redis_url=valkey.url, postgres_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(CountsAway, match="PostgreSQL is away"):
        async with nowhere:
            pass
