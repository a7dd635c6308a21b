"""The shape of a real surge: an unknown petition, then everybody signs, then nobody; half an hour, compressed.

All on two cores: load generator, Kafka, PostgreSQL, Valkey and the four services. 8 % of the submissions are of signers who
have signed before. Between two steps the load rests until everything that was accepted is counted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import asyncpg
import httpx

from deploy.local.parts.process import PartFailed, Process
from tests.bench.clients import load
from tests.bench.measuring.counts import WrongCount, count_of
from tests.bench.measuring.measure import MB, Meter
from tests.bench.measuring.progress import TALLY, VERIFY, Broker
from tests.bench.results.figures import Figure, at_least, at_most, figure
from tests.bench.scale import Scale
from tests.bench.setup import petitions
from tests.bench.setup.arena import Arena
from tests.bench.setup.backlog import DUPLICATES

_SERVICES = ("ingest", "verify", "tally", "notify")
_CONNECTIONS = 128
_LAG_SECONDS = 5.0
"""Everything accepted in a step must be counted within so many seconds after its end."""
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_LAG_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Step:
    """A constant rate for a while; a rate of 0 is rest."""

    rate: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a step.

    Attributes:
        seen: the load generator's results.
        lag_most: the highest number of waiting submissions and facts.
        caught_up_seconds: from the end of the load until nothing was waiting.
    """

    step: _Step
    seen: load.LoadResult
    lag_most: int
    caught_up_seconds: float


@dataclass(slots=True)
class _Round:
    """One whole surge."""

    outcomes: list[_Outcome] = field(default_factory=list)
    rss: dict[str, float] = field(default_factory=dict)
    idle_cpu: float = 0.0


_FULL = (
    _Step(33, 30),
    _Step(250, 30),
    _Step(500, 30),
    _Step(1_000, 45),
    _Step(2_000, 60),
    _Step(500, 30),
    _Step(33, 30),
)
_QUICK = (_Step(33, 3), _Step(300, 3), _Step(1_000, 4), _Step(33, 3))
_IDLE_SECONDS = 10.0


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """The whole surge, several times."""
    steps = scale.pick(_FULL, quick=_QUICK)
    rounds = []
    for _ in range(scale.repeat):
        await arena.fresh()
        await petitions.publish(arena.bootstrap_servers, [petitions.HOT], milestones=[100, 1_000, 10_000, 100_000])
        rounds.append(await _surge(arena, steps, scale))
    return _figures(rounds, steps)


async def _surge(arena: Arena, steps: tuple[_Step, ...], scale: Scale) -> _Round:
    services = await asyncio.gather(
        arena.service("ingest"), arena.service("verify"), arena.service("tally"), arena.service("notify")
    )
    ingest, _, tally, _ = services
    broker = Broker(arena.bootstrap_servers)
    await load.warm(ingest.url, [petitions.HOT], scale.warm_seconds)
    await _caught_up(broker)
    result = _Round()
    async with Meter(arena, services) as meter:
        for step in steps:
            result.outcomes.append(await _step(ingest.url, broker, step))
            _require_running(services)
    result.rss = {name: meter.usage.rss_most[name] / MB for name in _SERVICES}
    async with Meter(arena, services) as idle:
        await asyncio.sleep(scale.pick(_IDLE_SECONDS, quick=2.0))
    result.idle_cpu = idle.usage.cpu_of(*_SERVICES) / idle.usage.seconds * 100
    await _require_all_counted(arena, broker, tally.url)
    return result


async def _step(ingest_url: str, broker: Broker, step: _Step) -> _Outcome:
    watching = asyncio.create_task(_lag_most(broker))
    try:
        seen = await load.sign(
            ingest_url,
            [petitions.HOT],
            seconds=step.seconds,
            rate=step.rate,
            connections=min(_CONNECTIONS, step.rate),
            again=DUPLICATES,
        )
    finally:
        watching.cancel()
    caught_up = await _caught_up(broker)
    (lag_most,) = await asyncio.gather(watching, return_exceptions=True)
    if isinstance(lag_most, BaseException):
        raise lag_most
    return _Outcome(step, seen, lag_most, caught_up)


async def _lag_most(broker: Broker) -> int:
    """The largest lag until cancelled."""
    most = 0
    try:
        while True:
            most = max(most, await broker.lag([VERIFY, TALLY]))
            await asyncio.sleep(_LAG_LOOK_SECONDS)
    except asyncio.CancelledError:
        return most


async def _caught_up(broker: Broker) -> float:
    """Wait until nothing is waiting; returns the seconds that took.

    Raises:
        PartFailed: something still is, after a long time.
    """
    began = time.monotonic()
    # Twice: verify publishes before it commits, so a lag of 0 is valid only if nothing arrived in between.
    while await broker.lag([VERIFY]) or await broker.lag([TALLY]):
        if time.monotonic() - began > _PATIENCE_SECONDS:
            raise PartFailed(f"the lag was not back to 0 within {_PATIENCE_SECONDS:.0f} s")
        await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


def _require_running(services: tuple[Process, ...]) -> None:
    for service in services:
        if service.ended_by_itself:
            raise PartFailed(service.describe_end())


async def _require_all_counted(arena: Arena, broker: Broker, tally_url: str) -> None:
    """Every record on the topic is decided, and every signature that stands is counted.

    Raises:
        WrongCount: one is not.
    """
    submitted = await broker.written(VERIFY.topic)
    connection = await asyncpg.connect(arena.postgres.url)
    try:
        stored = await connection.fetchval("SELECT count(*) FROM signatures")
        standing = await connection.fetchval("SELECT count(*) FROM signatures WHERE state = 'verified'")
    finally:
        await connection.close()
    async with httpx.AsyncClient(base_url=tally_url, verify=False, trust_env=False) as client:
        counted = await count_of(client, petitions.HOT)
    if stored != submitted or counted != standing:
        raise WrongCount(f"{submitted:,} submitted, {stored:,} decided; {standing:,} stand, {counted:,} counted")


def _figures(rounds: list[_Round], steps: tuple[_Step, ...]) -> list[Figure]:
    peak = max(step.rate for step in steps)

    def worst(of: str) -> list[float]:
        return [max(float(getattr(outcome, of)) for outcome in each.outcomes) for each in rounds]

    def seen_at_peak(of: str) -> list[float]:
        return [
            next(float(getattr(outcome.seen, of)) for outcome in each.outcomes if outcome.step.rate == peak)
            for each in rounds
        ]

    turned_away = [
        float(sum(outcome.seen.refused + outcome.seen.broken for outcome in each.outcomes)) for each in rounds
    ]
    return [
        figure("surge.refused", turned_away, "requests", at_most(0, "requests"), note="refused, or without an answer"),
        figure(
            "surge.caught_up",
            worst("caught_up_seconds"),
            "s",
            at_most(_LAG_SECONDS, "s"),
            note="from the end of a step until everything accepted is counted; the slowest step",
        ),
        figure("surge.lag", worst("lag_most"), "records", note="the most that waited at once, in both topics"),
        figure(
            "surge.rate.peak",
            seen_at_peak("rate"),
            "signatures/s",
            at_least(0.98 * peak, "signatures/s"),
            note=f"accepted, at the steepest step, where {peak:,}/s were sent",
        ),
        figure("surge.p99.peak", seen_at_peak("p99_ms"), "ms", note="of the answer to a signer, at the steepest step"),
        figure(
            "surge.behind.peak",
            seen_at_peak("behind_ms"),
            "ms",
            note="how late the load generator was at the worst: its own share of the two cores",
        ),
        *(
            figure(f"surge.memory.{name}", [each.rss[name] for each in rounds], "MB", at_most(150, "MB"))
            for name in _SERVICES
        ),
        figure("surge.idle_cpu", [each.idle_cpu for each in rounds], "% of a core", note="all four services, idle"),
    ]
