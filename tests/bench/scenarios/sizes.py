"""Bytes of a record, a row, a petition, a minute, an update: what storage and networks must hold, for `groundswell capacity`.

Three measurements: topics and a live stream while signatures arrive by HTTP at a steady rate, so that Kafka's batches are
those of a busy day and not of a backlog; tables after a backlog with duplicates; and Redis with a petition that has signatures
in very many minutes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import httpx
import redis.asyncio

from deploy.local.parts.service import ServiceProcess
from shared.contract.events import SignatureVerified
from shared.contract.topics import (
    DEFAULT_PARTITIONS,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
)
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from tests.bench.clients import load
from tests.bench.measuring.counts import require_counts
from tests.bench.measuring.measure import written
from tests.bench.measuring.progress import TALLY, VERIFY, Broker, Watch
from tests.bench.results.figures import Figure, figure
from tests.bench.scale import Scale
from tests.bench.setup import backlog, petitions
from tests.bench.setup.arena import Arena

RATE = 1_000.0

TOPICS = {
    "submitted": SIGNATURES_SUBMITTED.name,
    "verified": SIGNATURES_VERIFIED.name,
    "rejected": SIGNATURES_REJECTED.name,
    "tallies": TALLIES_UPDATED.name,
}


@dataclass(frozen=True, slots=True)
class _Size:
    """Submissions of the backlog, part of them duplicates; minutes of the petition that is looked at in Redis."""

    submissions: int
    minutes: int


class _Sizes(defaultdict[str, list[float]]):
    """The results, by the figure's name, a value for each round."""

    def __init__(self) -> None:
        super().__init__(list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Measure everything, several times."""
    size = scale.pick(_Size(300_000, 10_000), quick=_Size(20_000, 500))
    found = _Sizes()
    for _ in range(scale.repeat):
        await _topics(arena, scale, found)
        await _tables(arena, size, found)
        await _redis(arena, size, found)
    return _figures(found, size)


async def _topics(arena: Arena, scale: Scale, found: _Sizes) -> None:
    """Bytes per record on each topic, one copy, at a steady rate with duplicates; and per update on a live stream."""
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    ingest, _verify, tally = await asyncio.gather(*(arena.service(name) for name in ("ingest", "verify", "tally")))
    await load.warm(ingest.url, [petitions.HOT], scale.warm_seconds)
    broker = Broker(arena.bootstrap_servers)
    before, records = await written(arena), await _records(broker)
    streamed = asyncio.create_task(_bytes_per_update(tally, scale.seconds))
    await load.sign(
        ingest.url,
        [petitions.HOT],
        seconds=scale.seconds,
        rate=RATE,
        connections=256,
        again=backlog.DUPLICATES,
    )
    found["sizes.stream.update"].append(await streamed)
    while await broker.lag([VERIFY, TALLY]):
        await asyncio.sleep(0.2)
    wrote, after = (await written(arena)).since(before), await _records(broker)
    for what, topic in TOPICS.items():
        found[f"sizes.kafka.{what}"].append(wrote.kafka[topic] / (after[topic] - records[topic]))


async def _records(broker: Broker) -> dict[str, int]:
    return {topic: await broker.written(topic) for topic in TOPICS.values()}


async def _bytes_per_update(tally: ServiceProcess, seconds: float) -> float:
    """Bytes of one update as a page gets it, the HTTP chunk's frame included. Reads the stream for `seconds`."""
    size = updates = 0
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=tally.url, verify=False, trust_env=False, timeout=seconds + 30) as client:
        path = f"/v1/petitions/{petitions.HOT}/tally/stream"
        async with client.stream("GET", path, params={"detail": "count"}) as answer:
            answer.raise_for_status()
            end = loop.time() + seconds
            async for chunk in answer.aiter_raw():
                size += len(chunk) + len(f"{len(chunk):x}") + 4
                updates += chunk.count(b"event: ")
                if loop.time() > end:
                    break
    return size / updates


async def _tables(arena: Arena, size: _Size, found: _Sizes) -> None:
    """Bytes per row of signatures and ledger, with all indexes, after signers in random order."""
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    filled = await backlog.submitted(
        arena.bootstrap_servers, arena.environment["SIGNER_PEPPER"], [petitions.HOT], size.submissions
    )
    verify, tally = await asyncio.gather(arena.service("verify"), arena.service("tally"))
    await Watch(Broker(arena.bootstrap_servers), [VERIFY, TALLY], [verify, tally]).until(
        {VERIFY: size.submissions, TALLY: filled.signers}, timeout_seconds=60 + size.submissions / 500
    )
    await require_counts(tally.url, filled.counts)
    await arena.stop_all()
    connection = await asyncpg.connect(arena.postgres.url)
    try:
        for table in ("signatures", "ledger"):
            rows = await connection.fetchval(f"SELECT count(*) FROM {table}", timeout=120)
            stored = await connection.fetchval(f"SELECT pg_total_relation_size('{table}')")
            found[f"sizes.postgres.{table}"].append(stored / rows)
    finally:
        await connection.close()


async def _redis(arena: Arena, size: _Size, found: _Sizes) -> None:
    """Memory of a petition, and of each of its minutes, as Redis itself counts it."""
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    # The facts' rows have other times, which an audit would report.
    tally = await arena.service("tally", TALLY_AUDIT_SECONDS="0")
    await backlog.into_ledger(arena.postgres.url, [petitions.HOT] * size.minutes)
    await backlog.publish(arena.bootstrap_servers, SIGNATURES_VERIFIED.name, _facts(size.minutes))
    await Watch(Broker(arena.bootstrap_servers), [TALLY], [tally]).until({TALLY: size.minutes}, timeout_seconds=120)
    await require_counts(tally.url, {petitions.HOT: size.minutes})
    async with redis.asyncio.Redis.from_url(arena.valkey.url) as client:
        by_minute = await _held(client, f"tally:{{{petitions.HOT}}}:minutes")
        found["sizes.redis.minute"].append(by_minute / size.minutes)
        found["sizes.redis.petition"].append(await _held(client, f"tally:{{{petitions.HOT}}}"))


async def _held(client: redis.asyncio.Redis, key: str) -> int:
    held = await client.memory_usage(key, samples=0)
    assert held is not None, f"Redis has no {key}"
    return held


def _facts(minutes: int) -> Iterator[Record]:
    """One fact in each of so many minutes, over all lanes and ten countries."""
    now = datetime.now(UTC)
    for number in range(minutes):
        fact = SignatureVerified(
            signature_id=UUID(int=number + 1),
            petition_id=petitions.HOT,
            lane=number % DEFAULT_PARTITIONS,
            position=number // DEFAULT_PARTITIONS + 1,
            country=("DE", "NL", "BE", "AT", "FR", "DK", "SE", "PL", "IT", "GB")[number % 10],
            signed_at=now - timedelta(minutes=minutes - number),
            occurred_at=now,
        )
        headers = event_headers(
            SignatureVerified,
            event_id=fact.signature_id,
            source="/groundswell/verify",
            subject=petitions.HOT,
            time=now,
        )
        yield Record(petitions.HOT.encode(), fact.model_dump_json().encode(), headers)


def _figures(found: _Sizes, size: _Size) -> list[Figure]:
    notes = {
        "sizes.kafka": f"per record, compressed as on that topic, one copy, at {RATE:,.0f} signatures/s",
        "sizes.postgres": f"per row, all indexes included, after {size.submissions:,} submissions",
        "sizes.redis": f"as MEMORY USAGE counts it, with {size.minutes:,} minutes",
        "sizes.stream": "on the wire, to a page",
    }
    return [
        figure(name, values, "bytes", note=notes[name.rpartition(".")[0]]) for name, values in sorted(found.items())
    ]
