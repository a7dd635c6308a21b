"""`read`: a count, an unchanged count, an organisation's page, and live streams.

One process of tally answers all of it. wrk and the crowd of subscribers use the machine's other core.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from deploy.demo.sending.client import Connection
from deploy.local.parts.service import ServiceName, ServiceProcess
from tests.bench.clients import load
from tests.bench.clients.crowd import Crowd
from tests.bench.clients.web import count_of, seconds_until, submission
from tests.bench.measuring.measure import MB, Meter, cpu_seconds, rss_bytes
from tests.bench.results.figures import Figure, at_least, at_most, figure
from tests.bench.scale import Scale
from tests.bench.setup import petitions
from tests.bench.setup.arena import Arena

_PETITIONS: Final = 7
"""Petitions of the organisation, as many as in the demo."""
_TALLY: Final = f"/v1/petitions/{petitions.HOT}/tally"
_STREAM: Final = f"{_TALLY}/stream"
_SERVICES: Final[tuple[ServiceName, ...]] = ("ingest", "verify", "tally")
_UPDATES: Final = 5
"""Signatures per size of the crowd and round; after each, all subscribers are awaited."""
_MOST_SECONDS: Final = 30.0
KB: Final = 1024


@dataclass(slots=True)
class _Seen:
    """What was measured, by case, round by round."""

    rate: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu_us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    p99_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    all_have_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    first_to_last_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    update_us: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    kb: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    join_seconds: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    rss_mb: list[float] = field(default_factory=list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Plain and conditional reads at full speed, then streams, in growing crowds."""
    seen = _Seen()
    for _ in range(scale.repeat):
        await arena.fresh()
        await petitions.publish(arena.bootstrap_servers, [petitions.HOT, *petitions.spread(_PETITIONS - 1)])
        services = {name: await arena.service(name) for name in _SERVICES}
        await _fill(services, scale)
        await _reads(arena, services["tally"], scale, seen)
        await _streams(arena, services, scale, seen)
    return _figures(seen, scale)


async def _fill(services: dict[ServiceName, ServiceProcess], scale: Scale) -> None:
    """Counts with break-downs by country and minute, as a busy petition's."""
    ingest, tally = services["ingest"].url, services["tally"].url
    signed = [petitions.HOT, *petitions.spread(_PETITIONS - 1)]
    sent = await load.sign(ingest, signed, seconds=scale.pick(10.0, quick=2.0), rate=500)

    async def all_counted() -> bool:
        return sum([await count_of(tally, petition_id) for petition_id in signed]) >= sent.accepted

    if await seconds_until(all_counted, most=60) > 60:
        raise load.LoadFailed("not every signature was counted within a minute")


async def _reads(arena: Arena, tally: ServiceProcess, scale: Scale, seen: _Seen) -> None:
    connection = Connection(tally.url)
    etag = (await connection.get(_TALLY)).headers[b"etag"].decode()
    connection.close()
    organisation = petitions.ORGANISATION
    cases = {
        "tally": (_TALLY, "application/json", "-"),
        "tally_unchanged": (_TALLY, "application/json", f"if-none-match: {etag}"),
        "organisation": (f"/v1/organisations/{organisation}", "application/json", "-"),
        "organisation_page": (f"/o/{organisation}", "text/html", "-"),
        "petition_page": (f"/p/{petitions.HOT}", "text/html", "-"),
    }
    for name, (path, accept, header) in cases.items():
        await load.get(tally.url, [path], seconds=scale.warm_seconds, accept=accept, header=header)
        async with Meter(arena, [tally]) as meter:
            got = await load.get(tally.url, [path], seconds=scale.seconds / 2, accept=accept, header=header)
        if got.refused or got.broken:
            raise load.LoadFailed(f"GET {path}: {got.refused} refused, {got.broken} broken off")
        seen.rate[name].append(got.rate)
        seen.p99_ms[name].append(got.p99_ms)
        seen.cpu_us[name].append(meter.usage.cpu_us("tally", got.accepted))


async def _streams(arena: Arena, services: dict[ServiceName, ServiceProcess], scale: Scale, seen: _Seen) -> None:
    tally = services["tally"]
    where = urlsplit(tally.url)
    assert where.hostname is not None
    assert where.port is not None
    async with Crowd(arena) as crowd:
        before, there = rss_bytes(tally), 0
        for size in crowds(scale):
            joined = await crowd.join(where.hostname, where.port, _STREAM, size - there)
            if joined["failed"]:
                raise load.LoadFailed(f"{joined['failed']:.0f} of {size:,} streams had no first event")
            seen.join_seconds[size].append(joined["seconds"])
            there = size
            for _ in range(_UPDATES):
                await _update(services, crowd, size, seen)
            seen.kb[size].append((rss_bytes(tally) - before) / size / KB)
        seen.rss_mb.append(rss_bytes(tally) / MB)


async def _update(services: dict[ServiceName, ServiceProcess], crowd: Crowd, size: int, seen: _Seen) -> None:
    """Send one signature, and wait until every subscriber has the update."""
    tally = services["tally"]
    await asyncio.sleep(0.5)  # snapshots are at least 250 ms apart; closer ones cannot be distinguished
    signing, looking = Connection(services["ingest"].url), Connection(tally.url)
    try:
        revision = json.loads((await looking.get(_TALLY)).body)["revision"] + 1
        cpu, began = cpu_seconds(tally), time.monotonic()
        answer = await signing.post(
            f"/v1/petitions/{petitions.HOT}/signatures", submission(), {"content-type": "application/json"}
        )
        if answer.status != 202:
            raise load.LoadFailed(f"a signature was answered with {answer.status}")

        async def all_have() -> bool:
            return (await crowd.seen(revision))["have"] >= size

        if await seconds_until(all_have, most=_MOST_SECONDS, look_every=0.05) > _MOST_SECONDS:
            raise load.LoadFailed(f"after {_MOST_SECONDS:.0f} s: {await crowd.seen(revision)}, of {size:,}")
    finally:
        signing.close()
        looking.close()
    had = await crowd.seen(revision)
    seen.all_have_ms[size].append((had["last"] - began) * 1e3)
    seen.first_to_last_ms[size].append((had["last"] - had["first"]) * 1e3)
    seen.update_us[size].append((cpu_seconds(tally) - cpu) / size * 1e6)


def crowds(scale: Scale) -> tuple[int, ...]:
    """Subscribers, growing."""
    return scale.pick((1_000, 5_000, 10_000), quick=(200, 1_000))


def _figures(seen: _Seen, scale: Scale) -> list[Figure]:
    made = []
    for name, rates in seen.rate.items():
        goal = at_least(5_000, "/s") if name.startswith("tally") else None
        made += [
            figure(f"read.rate.{name}", rates, "1/s", goal, note="GET, one process"),
            figure(f"read.cpu.{name}", seen.cpu_us[name], "µs", note="of tally, per GET"),
            figure(f"read.p99.{name}", seen.p99_ms[name], "ms", note="at full speed, 64 connections"),
        ]
    largest = crowds(scale)[-1]
    for size in crowds(scale):
        is_goal = size == largest
        made += [
            figure(
                f"read.sse_all_updated.{size}",
                seen.all_have_ms[size],
                "ms",
                at_most(1_000, "ms") if is_goal else None,
                note="from sending a signature until the last subscriber has the new count, Kafka and verify included",
            ),
            figure(f"read.sse_first_to_last.{size}", seen.first_to_last_ms[size], "ms"),
            figure(f"read.sse_cpu.{size}", seen.update_us[size], "µs", note="of tally, per update and subscriber"),
            figure(
                f"read.sse_memory.{size}",
                seen.kb[size],
                "KB",
                at_most(50, "KB") if is_goal else None,
                note="RSS of tally per subscriber",
            ),
            figure(f"read.sse_join.{size}", seen.join_seconds[size], "s", note="to open the streams that were new"),
        ]
    return [*made, figure("read.rss", seen.rss_mb, "MB", note=f"tally with {largest:,} streams open")]
