"""Verified facts into Redis only: tally against Quix Streams, FastStream, and a consumer that only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.local.parts.process import Process
from tests.bench.measuring.counts import require_counts
from tests.bench.measuring.measure import MB, written
from tests.bench.measuring.progress import TALLY, Broker, Reader, Stretch, Watch
from tests.bench.results.figures import Figure, at_most, figure, times_less
from tests.bench.scale import Scale
from tests.bench.setup import backlog, petitions, processes
from tests.bench.setup.arena import Arena

_NO_AUDIT = {"TALLY_AUDIT_SECONDS": "0"}
"""Counting is measured here, not audits."""

_QUICK_LOOKS = 0.1


@dataclass(frozen=True, slots=True)
class _Size:
    """How many records: not measured, measured; and the same of the peers and the floor."""

    warm: int
    facts: int
    quix_warm: int
    quix: int
    faststream_warm: int
    faststream: int
    petitions: int


@dataclass(slots=True)
class _Rounds:
    """The results of each round."""

    hot: list[Stretch] = field(default_factory=list)
    spread: list[Stretch] = field(default_factory=list)
    quix: list[Stretch] = field(default_factory=list)
    faststream: list[Stretch] = field(default_factory=list)
    floor: list[Stretch] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    redis_bytes: list[float] = field(default_factory=list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Fill, count, and let the peers and the floor read the same topic."""
    size = scale.pick(
        _Size(200_000, 1_000_000, 100_000, 500_000, 2_000, 20_000, 200),
        quick=_Size(50_000, 200_000, 20_000, 200_000, 500, 2_000, 50),
    )
    rounds = _Rounds()
    for _ in range(scale.repeat):
        await _hot(arena, size, rounds)
        await _others(arena, size, rounds)
        await _spread(arena, size, rounds)
    return _figures(rounds, size)


async def _hot(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    filled = await _filled(arena, [petitions.HOT], size)
    before = await written(arena)
    tally = await arena.service("tally", **_NO_AUDIT)
    watch = await _counted(arena, TALLY, [tally, arena.valkey], filled.records)
    await require_counts(tally.url, filled.counts)
    rounds.hot.append(watch.course.stretch(TALLY, size.warm, filled.records))
    rounds.rss.append(watch.course.rss_most("tally") / MB)
    rounds.redis_bytes.append((await written(arena)).since(before).redis / filled.records)
    await arena.stop_one(tally)


async def _others(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    total = size.warm + size.facts
    floor = await processes.consume_floor(arena)
    watch = await _counted(arena, processes.CONSUME_FLOOR, [floor], total)
    rounds.floor.append(watch.course.stretch(processes.CONSUME_FLOOR, size.warm, total))
    await arena.stop_one(floor)

    wanted = size.quix_warm + size.quix
    quix = await processes.quix(arena)
    watch = await _counted(arena, processes.QUIX_TALLY, [quix], wanted)
    rounds.quix.append(watch.course.stretch(processes.QUIX_TALLY, size.quix_warm, wanted))
    await arena.stop_one(quix)

    wanted = size.faststream_warm + size.faststream
    faststream = await processes.faststream(arena, "tally")
    watch = await _counted(arena, processes.FASTSTREAM_TALLY, [faststream], wanted)
    rounds.faststream.append(watch.course.stretch(processes.FASTSTREAM_TALLY, size.faststream_warm, wanted))
    await arena.stop_one(faststream)


async def _spread(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    filled = await _filled(arena, petitions.spread(size.petitions), size)
    tally = await arena.service("tally", **_NO_AUDIT)
    watch = await _counted(arena, TALLY, [tally, arena.valkey], filled.records)
    await require_counts(tally.url, filled.counts)
    rounds.spread.append(watch.course.stretch(TALLY, size.warm, filled.records))
    await arena.stop_one(tally)


async def _filled(arena: Arena, petition_ids: Sequence[str], size: _Size) -> backlog.Filled:
    await arena.fresh()
    await petitions.publish(arena.bootstrap_servers, petition_ids)
    return await backlog.verified(arena.bootstrap_servers, arena.postgres.url, petition_ids, size.warm + size.facts)


async def _counted(arena: Arena, reader: Reader, measured: Sequence[Process], records: int) -> Watch:
    watch = Watch(Broker(arena.bootstrap_servers), [reader], measured, every=_QUICK_LOOKS)
    return await watch.until({reader: records}, timeout_seconds=120 + records / 500)


def _figures(rounds: _Rounds, size: _Size) -> list[Figure]:
    quix = [stretch.cpu_us("quix-tally") for stretch in rounds.quix]
    ours = [stretch.cpu_us("tally") for stretch in rounds.hot]
    return [
        figure("tally.cpu.hot", ours, "µs", at_most(8, "µs"), note="one petition"),
        figure(
            "tally.cpu.hot.peer",
            ours,
            "µs",
            times_less(4, "Quix Streams"),
            peer="Quix Streams",
            peer_values=quix,
            note="Quix Streams keeps the count only, without break-downs, and publishes nothing",
        ),
        figure(
            "tally.cpu.hot.faststream",
            ours,
            "µs",
            peer="FastStream, one at a time",
            peer_values=[stretch.cpu_us("faststream-tally") for stretch in rounds.faststream],
        ),
        figure(
            "tally.cpu.hot.floor",
            ours,
            "µs",
            peer="bare aiokafka consumer",
            peer_values=[stretch.cpu_us("consume-floor") for stretch in rounds.floor],
        ),
        figure(
            "tally.cpu.spread",
            [stretch.cpu_us("tally") for stretch in rounds.spread],
            "µs",
            note=f"{size.petitions} petitions, by a power law",
        ),
        figure(
            "tally.rate.hot",
            [stretch.rate for stretch in rounds.hot],
            "facts/s",
            peer="Quix Streams",
            peer_values=[stretch.rate for stretch in rounds.quix],
        ),
        figure("tally.rate.spread", [stretch.rate for stretch in rounds.spread], "facts/s"),
        figure("tally.cpu.valkey", [stretch.cpu_us("valkey") for stretch in rounds.hot], "µs"),
        figure("tally.memory", rounds.rss, "MB", at_most(150, "MB"), note=f"the most RSS seen, {size.facts:,} facts"),
        figure("tally.bytes.redis", rounds.redis_bytes, "bytes/fact", note="append-only file"),
    ]
