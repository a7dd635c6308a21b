"""`accept`: HTTP to 202, which is sent after Kafka's acknowledgement.

ingest, the floor (a bare ASGI callable that parses and produces) and peer (e) (FastAPI and aiokafka) take the same load in
turns, each in one process, with the same broker and the same producer settings. All run all the time, idle between their
turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from deploy.local.parts.process import Process
from shared.contract.topics import SIGNATURES_SUBMITTED
from tests.bench.clients import load
from tests.bench.clients.web import serve
from tests.bench.measuring.measure import MB, Meter, Usage
from tests.bench.results.figures import Figure, at_most, at_most_times, figure, times_less
from tests.bench.scale import Scale
from tests.bench.setup import petitions
from tests.bench.setup.arena import Arena

RATE: Final = 2_000.0
CONNECTIONS: Final = 64
"""Connections at full speed. At a constant rate four times as many are open, so that the load never waits for a free one."""

FLOOR: Final = "floor"
PEER: Final = "peer-fastapi-kafka"


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject that accepts signatures."""

    process: Process
    url: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of one measurement."""

    load: load.LoadResult
    usage: Usage
    name: str

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the process per accepted signature."""
        return self.usage.cpu_us(self.name, self.load.accepted)

    @property
    def kafka_cpu_us(self) -> float:
        """CPU microseconds of Kafka per accepted signature."""
        return self.usage.cpu_us("kafka", self.load.accepted)

    @property
    def bytes(self) -> float:
        """Bytes that Kafka wrote per accepted signature."""
        return self.usage.written.kafka[SIGNATURES_SUBMITTED.name] / self.load.accepted


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Measure ingest, floor and peer in turns: one hot petition and many, at full speed and at 2,000 a second."""
    many = petitions.spread(1_000)
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT, *many])
    ingest = await arena.service("ingest")
    floor = await serve(arena, FLOOR, "tests.bench.floors.asgi_produce")
    peer = await serve(arena, PEER, "tests.bench.peers.fastapi_kafka")
    subjects = [
        Subject(ingest, ingest.url),
        Subject(floor.process, floor.url),
        Subject(peer.process, peer.url),
    ]
    turns: dict[str, list[Turn]] = defaultdict(list)
    for subject in subjects:
        await load.warm(subject.url, [petitions.HOT], scale.warm_seconds)
    for _ in range(scale.repeat):
        for petition_ids, how in (([petitions.HOT], "hot"), (many, "spread")):
            for subject in subjects:
                name = subject.process.name
                turns[f"{name}.{how}.full"].append(await _turn(arena, subject, petition_ids, scale.seconds, 0))
                turns[f"{name}.{how}.paced"].append(await _turn(arena, subject, petition_ids, scale.seconds, RATE))
    return _figures(turns)


async def _turn(arena: Arena, subject: Subject, petition_ids: Sequence[str], seconds: float, rate: float) -> Turn:
    await load.warm(subject.url, petition_ids, 1.0)
    connections = CONNECTIONS * 4 if rate else CONNECTIONS
    async with Meter(arena, [subject.process]) as meter:
        result = await load.sign(subject.url, petition_ids, seconds=seconds, rate=rate, connections=connections)
    if result.refused or result.broken:
        raise load.LoadFailed(
            f"{subject.process.name} refused {result.refused} and broke off {result.broken}: {result}"
        )
    return Turn(result, meter.usage, subject.process.name)


def _figures(turns: dict[str, list[Turn]]) -> list[Figure]:
    def cpu(who: str, how: str) -> list[float]:
        return [turn.cpu_us for turn in turns[f"{who}.{how}"]]

    made = []
    for how in ("hot", "spread"):
        for speed, said in (("full", ""), ("paced", f"at {RATE:,.0f}/s")):
            case = f"{how}.{speed}"
            # The goals apply to a busy process. At a steady rate every process spends most of the cost on waking up.
            busy = speed == "full"
            ours = cpu("ingest", case)
            made += [
                figure(
                    f"accept.cpu_floor.{case}", ours, "µs", at_most_times(1.3, "the raw floor") if busy else None,
                    peer=FLOOR, peer_values=cpu(FLOOR, case), note=said,
                ),
                figure(
                    f"accept.cpu_peer.{case}", ours, "µs", times_less(2.3, "peer (e)") if busy else None,
                    peer=PEER, peer_values=cpu(PEER, case), note=said,
                ),
            ]  # fmt: skip
        full, paced = turns[f"ingest.{how}.full"], turns[f"ingest.{how}.paced"]
        of_peer, of_peer_paced = turns[f"{PEER}.{how}.full"], turns[f"{PEER}.{how}.paced"]
        made += [
            figure(
                f"accept.rate.{how}", [turn.load.rate for turn in full], "1/s",
                peer=PEER, peer_values=[turn.load.rate for turn in of_peer],
                note="one process; Kafka and wrk share the machine's cores with it",
            ),
            figure(
                f"accept.p99.{how}", [turn.load.p99_ms for turn in paced], "ms", at_most(50, "ms"),
                peer=PEER, peer_values=[turn.load.p99_ms for turn in of_peer_paced],
                note=f"at {RATE:,.0f}/s; the latest request was {max(turn.load.behind_ms for turn in paced):.0f} ms late",
            ),
            figure(f"accept.p50.{how}", [turn.load.p50_ms for turn in paced], "ms", note=f"at {RATE:,.0f}/s"),
            figure(f"accept.kafka_cpu.{how}", [turn.kafka_cpu_us for turn in full], "µs"),
            figure(f"accept.kafka_bytes.{how}", [turn.bytes for turn in full], "bytes", note="per signature, lz4"),
        ]  # fmt: skip
    most = [
        turn.usage.rss_most["ingest"] / MB for name, each in turns.items() if name.startswith("ingest") for turn in each
    ]
    return [*made, figure("accept.rss", [max(most)], "MB", at_most(150, "MB"), note="ingest, the most that was seen")]
