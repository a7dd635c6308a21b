"""`road`: HTTP to visible in the tally API, with all four services, Kafka, PostgreSQL, Valkey and the load generator on
this one machine.

Latency is measured by separate signatures, one after the other, on petitions without other signers. They share the way of all
others: their petitions are chosen so that their facts go through the hot petition's partition, behind the same batches, and
each is awaited at ``GET …/tally``.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import httpx

from deploy.local.parts.service import SERVICES, ServiceName, ServiceProcess
from shared.contract.topics import DEFAULT_PARTITIONS, SIGNATURES_SUBMITTED
from shared.kafka.producing.partitioner import partition_of
from tests.bench.clients import load
from tests.bench.clients.web import count_of, meanwhile, percentile, seconds_until, serve, visible
from tests.bench.measuring.measure import MB, Meter, Usage
from tests.bench.measuring.progress import Broker
from tests.bench.results.figures import Figure, Goal, at_most, figure, times_more
from tests.bench.scale import Scale
from tests.bench.setup import petitions
from tests.bench.setup.arena import Arena

RATES: Final[dict[int, Goal | None]] = {500: at_most(150, "ms"), 1_000: at_most(500, "ms"), 2_000: None}
"""Signatures a second on one hot petition, and the goal for the 99th percentile until visible."""

PEERS: Final = {
    "peer-fastapi-postgres": "tests.bench.peers.fastapi_postgres",
    "peer-fastapi-batched": "tests.bench.peers.fastapi_batched_counter",
}

_CONNECTIONS: Final = 256
_PEER_CONNECTIONS: Final = 64
_PROBES: Final = 2
_PROBE_EVERY: Final = 0.05
_LAG_SECONDS: Final = 0.5
"""A rate is sustained if everything is visible within so many seconds after the last answer."""
_STEP: Final = 1.15
_MOST_STEPS: Final = 14
_FINE_STEPS: Final = 2
_LEAST_OF_RATE: Final = 0.98
"""A load that reached less than this part of its rate was slowed down by the answering side."""


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Latencies and costs at steady rates, and the highest sustained rate; in each round also the rate of the peers, which then
    have the machine for themselves, like ours."""
    seen = _Seen()
    for _ in range(scale.repeat):
        await _Road(arena, scale, seen).measure()
        for name, module in PEERS.items():
            seen.peers[name].append(await _peer_rate(arena, scale, name, module))
    return _figures(seen)


@dataclass(slots=True)
class _Seen:
    """The results of the rounds, by rate or by peer."""

    visible: dict[int, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds until visible, of every probe of every round."""
    accept_p99: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    usages: dict[int, list[tuple[int, Usage]]] = field(default_factory=lambda: defaultdict(list))
    """Number of signatures, and the resources used."""
    behind_ms: float = 0.0
    sustained: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class _Road:
    """One round of ours: services on empty parts."""

    def __init__(self, arena: Arena, scale: Scale, seen: _Seen) -> None:
        self._arena, self._scale, self._seen = arena, scale, seen
        self._broker = Broker(arena.bootstrap_servers)
        self._probes = _beside(petitions.HOT, _PROBES)
        self._services: dict[ServiceName, ServiceProcess] = {}

    async def measure(self) -> None:
        """Steady rates, then the highest one."""
        await self._arena.fresh()
        await petitions.publish(self._arena.bootstrap_servers, [petitions.HOT, *self._probes])
        self._services = {name: await self._arena.service(name) for name in SERVICES}
        await load.warm(self._services["ingest"].url, [petitions.HOT], self._scale.warm_seconds)
        for rate in RATES:
            await self._at(rate)
        self._seen.sustained.append(await self._highest_rate())

    async def _at(self, rate: int) -> None:
        """Latency and cost at a steady rate."""
        ingest, tally = self._services["ingest"].url, self._services["tally"].url
        await self._wait_until_idle()
        waits: list[float] = []
        probes = [visible(ingest, tally, probe, waits, every=_PROBE_EVERY) for probe in self._probes]
        async with meanwhile(*probes), Meter(self._arena, list(self._services.values())) as meter:
            sent = await load.sign(
                ingest, [petitions.HOT], seconds=self._scale.seconds, rate=rate, connections=_CONNECTIONS
            )
        self._seen.visible[rate].append(waits)
        self._seen.accept_p99[rate].append(sent.p99_ms)
        self._seen.usages[rate].append((sent.accepted + len(waits), meter.usage))
        self._seen.behind_ms = max(self._seen.behind_ms, sent.behind_ms)

    async def _highest_rate(self) -> float:
        """The highest rate, in steps of 15 % and then finer, at which nothing is refused and no backlog remains."""
        rate = 4_000.0
        holds, fails = 0.0, float("inf")
        for _ in range(_MOST_STEPS):
            if await self._sustains(rate):
                holds, rate = rate, rate * _STEP
            else:
                fails, rate = rate, rate / _STEP
            if holds and fails < float("inf"):
                break
        for _ in range(_FINE_STEPS if holds else 0):
            middle = (holds + fails) / 2
            if await self._sustains(middle):
                holds = middle
            else:
                fails = middle
        return holds

    async def _sustains(self, rate: float) -> bool:
        await self._wait_until_idle()
        sent = await load.sign(
            self._services["ingest"].url,
            [petitions.HOT],
            seconds=self._scale.pick(12.0, quick=3.0),
            rate=rate,
            connections=_CONNECTIONS,
        )
        if sent.refused or sent.broken or sent.rate < _LEAST_OF_RATE * rate:
            return False
        return await seconds_until(self._all_visible, most=_LAG_SECONDS) <= _LAG_SECONDS

    async def _wait_until_idle(self) -> None:
        if await seconds_until(self._all_visible, most=300, look_every=0.2) > 300:
            raise load.LoadFailed("five minutes after the load not every signature is counted")

    async def _all_visible(self) -> bool:
        """Whether the tally API counts every record that ingest has ever written (there are no duplicates)."""
        tally = self._services["tally"].url
        counts = [await count_of(tally, petition_id) for petition_id in (petitions.HOT, *self._probes)]
        return sum(counts) >= await self._broker.written(SIGNATURES_SUBMITTED.name)


async def _peer_rate(arena: Arena, scale: Scale, name: str, module: str) -> float:
    """The highest rate of a peer in signatures a second, with one process or two, whichever is higher."""
    best = 0.0
    for processes in (1, 2):
        await arena.fresh()
        peer = await serve(arena, name, module, {"WEB_CONCURRENCY": str(processes)})
        async with httpx.AsyncClient(verify=False, trust_env=False) as client:
            (await client.put(f"{peer.url}/v1/petitions/{petitions.HOT}")).raise_for_status()
        await load.warm(peer.url, [petitions.HOT], scale.warm_seconds)
        sent = await load.sign(peer.url, [petitions.HOT], seconds=scale.seconds, connections=_PEER_CONNECTIONS)
        if sent.refused or sent.broken:
            raise load.LoadFailed(f"{name} refused {sent.refused} and broke off {sent.broken}")
        best = max(best, sent.rate)
    return best


def _figures(seen: _Seen) -> list[Figure]:
    made = []
    for rate, goal in RATES.items():
        at = f"on one hot petition at {rate:,}/s"
        rounds = seen.visible[rate]
        made += [
            figure(
                f"road.visible_p99.{rate}",
                [percentile(waits, 0.99) for waits in rounds],
                "ms",
                goal,
                note=f"submitted to visible, {at}; {sum(map(len, rounds))} signatures followed",
            ),
            figure(f"road.visible_p50.{rate}", [percentile(waits, 0.5) for waits in rounds], "ms", note=at),
            figure(f"road.accept_p99.{rate}", seen.accept_p99[rate], "ms", note=f"HTTP to 202, {at}"),
        ]
    made += _costs(seen.usages[1_000])
    made += [
        figure(
            f"road.sustained.{name}",
            seen.sustained,
            "1/s",
            times_more(5, "peer (a)") if name == "peer-fastapi-postgres" else None,
            peer=name,
            peer_values=values,
            note="all services, parts and the load on this machine; peers at full speed, whatever their latency",
        )
        for name, values in seen.peers.items()
    ]
    most = max(usage.rss_most[name] / MB for _, usage in itertools.chain(*seen.usages.values()) for name in SERVICES)
    return [*made, figure("road.rss", [most], "MB", at_most(150, "MB"), note="the largest of the four services")]


def _costs(usages: list[tuple[int, Usage]]) -> list[Figure]:
    """The cost of a signature at 1,000/s: CPU of every process, bytes of every part."""
    names = [name for name in usages[0][1].cpu if name != "mailbox"]
    made = [
        figure(f"road.cpu.{name}", [usage.cpu_us(name, count) for count, usage in usages], "µs", note="at 1,000/s")
        for name in names
    ]
    written = {
        "kafka": [usage.written.kafka_total / count for count, usage in usages],
        "postgres": [usage.written.postgres / count for count, usage in usages],
        "redis": [usage.written.redis / count for count, usage in usages],
    }
    return made + [
        figure(f"road.bytes.{part}", values, "bytes", note="written per signature at 1,000/s")
        for part, values in written.items()
    ]


def _beside(petition_id: str, count: int) -> list[str]:
    """Ids of other petitions whose facts go through the same partition."""
    wanted = partition_of(petition_id.encode(), DEFAULT_PARTITIONS)
    ids = (f"probe-{number:03}" for number in itertools.count())
    return list(
        itertools.islice((each for each in ids if partition_of(each.encode(), DEFAULT_PARTITIONS) == wanted), count)
    )
