"""`overload`: three times ingest's capacity, for a minute.

First its capacity is measured at full speed. Then wrk sends at three times that rate over so many connections that more
wait than ingest accepts. wrk's latencies mix accepted and refused answers, so signatures of another client, a few a second,
are timed one by one: the time of accepted and of refused ones, and whether a refusal has `Retry-After`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from deploy.demo.sending.client import Connection, ConnectionLost
from tests.bench.clients import load
from tests.bench.clients.web import Answered, meanwhile, percentile, sample, submission
from tests.bench.measuring.measure import MB, Meter, Usage
from tests.bench.results.figures import Figure, at_most, figure
from tests.bench.scale import Scale
from tests.bench.setup import petitions
from tests.bench.setup.arena import Arena

TIMES: Final = 3.0
CONNECTIONS: Final = 4_000
"""Connections: twice as many as ingest handles requests at once."""

_SAMPLES_PER_SECOND: Final = 25.0
_CALM_MS: Final = 50.0
"""Recovered: ten signatures in a row are accepted, each within this time."""
_CALM_ANSWERS: Final = 10
_MOST_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Seen:
    """The results of the rounds."""

    capacity: list[float] = field(default_factory=list)
    offered: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    refused_part: list[float] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    broken: list[float] = field(default_factory=list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Capacity, overload, recovery; ingest is restarted for each round."""
    seen = _Seen()
    for _ in range(scale.repeat):
        await arena.fresh()
        await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
        await _round(arena, scale, seen)
    return _figures(seen)


async def _round(arena: Arena, scale: Scale, seen: _Seen) -> None:
    ingest = await arena.service("ingest")
    await load.warm(ingest.url, [petitions.HOT], scale.warm_seconds)
    capacity = (await load.sign(ingest.url, [petitions.HOT], seconds=scale.seconds / 2)).rate
    answered = Answered()
    path = load.signature_paths([petitions.HOT])[0]
    async with (
        Meter(arena, [ingest]) as meter,
        meanwhile(sample(ingest.url, path, answered, rate=_SAMPLES_PER_SECOND)),
    ):
        sent = await load.sign(
            ingest.url,
            [petitions.HOT],
            seconds=scale.pick(60.0, quick=5.0),
            rate=TIMES * capacity,
            connections=CONNECTIONS,
        )
    seen.recovery.append(await _seconds_until_calm(ingest.url, path))
    seen.capacity.append(capacity)
    seen.offered.append(sent.requests / sent.seconds)
    seen.accepted.append(sent.rate)
    seen.refused_part.append(sent.refused / max(1, sent.requests) * 100)
    seen.answered.append(answered)
    seen.usage.append(meter.usage)
    seen.broken.append(sent.broken + answered.lost)


async def _seconds_until_calm(url: str, path: str) -> float:
    """Seconds from the end of the overload to the first of ten signatures in a row that are accepted at once."""
    began = time.monotonic()
    connection = Connection(url)
    first, in_a_row = began, 0
    try:
        while in_a_row < _CALM_ANSWERS:
            asked = time.monotonic()
            if asked - began > _MOST_SECONDS:
                return float("inf")
            if in_a_row == 0:
                first = asked
            try:
                answer = await connection.post(path, submission(), {"content-type": "application/json"})
                is_calm = answer.status == 202 and (time.monotonic() - asked) * 1e3 <= _CALM_MS
            except (ConnectionLost, OSError):
                is_calm = False
            in_a_row = in_a_row + 1 if is_calm else 0
            await asyncio.sleep(0.02)
    finally:
        connection.close()
    return first - began


def _figures(seen: _Seen) -> list[Figure]:
    waits = [each.accepted_ms for each in seen.answered if each.accepted_ms]
    refusals = [each.refused_ms for each in seen.answered if each.refused_ms]
    statuses = sorted({status for each in seen.answered for status in each.statuses})
    asked = f"{TIMES:g} × capacity asked for over {CONNECTIONS:,} connections"
    made = [
        figure("overload.capacity", seen.capacity, "1/s", note="accepted a second at full speed, 64 connections"),
        figure("overload.offered", seen.offered, "1/s", note=f"answered, whatever the status; {asked}"),
        figure(
            "overload.accepted",
            [accepted / capacity * 100 for accepted, capacity in zip(seen.accepted, seen.capacity, strict=True)],
            "% of capacity",
            note="what is still accepted while the rest is turned away",
        ),
        figure("overload.refused", seen.refused_part, "%", note=f"of all answers; statuses seen: {statuses}"),
        figure("overload.broken", seen.broken, "requests", at_most(0, "requests"), note="no answer, or after 10 s"),
        figure(
            "overload.without_retry_after",
            [float(each.without_retry_after) for each in seen.answered],
            "answers",
            at_most(0, "answers"),
        ),
        figure(
            "overload.rss",
            [usage.rss_most["ingest"] / MB for usage in seen.usage],
            "MB",
            at_most(150, "MB"),
            note="ingest, at most",
        ),
        figure(
            "overload.recovery", seen.recovery, "s", at_most(5, "s"), note="until ten in a row are accepted in 50 ms"
        ),
    ]
    if waits:
        made.append(
            figure(
                "overload.accepted_p99",
                [percentile(each, 0.99) for each in waits],
                "ms",
                at_most(1_000, "ms"),
                note=f"of {sum(map(len, waits))} accepted signatures that were followed",
            )
        )
    if refusals:
        made.append(figure("overload.refused_p99", [percentile(each, 0.99) for each in refusals], "ms"))
    return made
