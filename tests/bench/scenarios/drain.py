"""A backlog of submitted signatures through verify and tally, both at once, against FastStream one message at a time.

All submissions are of one hot petition, 8 % of them duplicates. The backlog begins with a part that is not measured: during
it the services start and warm up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.bench.measuring.counts import require_counts
from tests.bench.measuring.measure import MB, Written, cpu_seconds, written
from tests.bench.measuring.progress import TALLY, VERIFY, Broker, Course, Watch
from tests.bench.results.figures import Figure, at_least, at_most, at_most_times, figure, times_less
from tests.bench.scale import Scale
from tests.bench.setup import backlog, petitions, processes
from tests.bench.setup.arena import Arena

_SERVICES = ("verify", "tally")
_ALL = ("verify", "tally", "kafka", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class _Size:
    """Numbers of records: not measured, measured, in the small part with which the whole is compared, and of the peer."""

    warm: int
    records: int
    small: int
    peer_warm: int
    peer: int
    floor_rows: int


@dataclass(slots=True)
class _Rounds:
    """The results of each round."""

    rate: list[float] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _ALL})
    whole: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    rss: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _SERVICES})
    growth: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _SERVICES})
    bytes: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in ("kafka", "postgres", "redis")})
    peer_cpu: list[float] = field(default_factory=list)
    peer_rate: list[float] = field(default_factory=list)
    floor_cpu: list[float] = field(default_factory=list)
    floor_postgres: list[float] = field(default_factory=list)
    floor_rate: list[float] = field(default_factory=list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """Fill, drain, and let the peer drain a part of the same backlog."""
    size = scale.pick(
        _Size(warm=60_000, records=1_000_000, small=100_000, peer_warm=2_000, peer=20_000, floor_rows=200_000),
        quick=_Size(warm=10_000, records=40_000, small=10_000, peer_warm=500, peer=2_000, floor_rows=20_000),
    )
    rounds = _Rounds()
    for _ in range(scale.repeat):
        await arena.fresh()
        await _ours(arena, size, rounds)
        await arena.stop_all()
        await _peer(arena, size, rounds)
        await _floor(arena, size, rounds)
    return _figures(rounds, size)


async def _ours(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    await petitions.publish(arena.bootstrap_servers, [petitions.HOT])
    total = size.warm + size.records
    filled = await backlog.submitted(
        arena.bootstrap_servers, arena.environment["SIGNER_PEPPER"], [petitions.HOT], total
    )
    before = await written(arena)
    verify, tally = await asyncio.gather(arena.service("verify"), arena.service("tally"))
    watch = Watch(
        Broker(arena.bootstrap_servers),
        [VERIFY, TALLY],
        [verify, tally, arena.kafka, arena.postgres, arena.valkey],
        every=0.1 if total < 100_000 else 0.5,
    )
    await watch.until({VERIFY: total, TALLY: filled.signers}, timeout_seconds=60 + total / 1_000)
    await require_counts(tally.url, filled.counts)
    _note(watch.course, size, rounds)
    _note_bytes((await written(arena)).since(before), total, rounds)


def _note(course: Course, size: _Size, rounds: _Rounds) -> None:
    whole = course.stretch(VERIFY, size.warm, size.warm + size.records, until=TALLY)
    small = course.stretch(VERIFY, size.warm, size.warm + size.small)
    rounds.rate.append(whole.rate)
    for name in _ALL:
        rounds.cpu[name].append(whole.cpu_us(name))
    rounds.whole.append(whole.cpu_us("verify", "tally", "postgres"))
    rounds.small.append(small.cpu_us("verify", "tally", "postgres"))
    for name in _SERVICES:
        rounds.rss[name].append(course.rss_most(name) / MB)
        rounds.growth[name].append((whole.last.rss[name] - small.last.rss[name]) / MB)


def _note_bytes(wrote: Written, records: int, rounds: _Rounds) -> None:
    rounds.bytes["kafka"].append(wrote.kafka_total / records)
    rounds.bytes["postgres"].append(wrote.postgres / records)
    rounds.bytes["redis"].append(wrote.redis / records)


async def _peer(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    reader = processes.FASTSTREAM_VERIFY
    peer = await processes.faststream(arena, "verify")
    watch = Watch(Broker(arena.bootstrap_servers), [reader], [peer])
    total = size.peer_warm + size.peer
    await watch.until({reader: total}, timeout_seconds=60 + total / 100)
    stretch = watch.course.stretch(reader, size.peer_warm, total)
    rounds.peer_cpu.append(stretch.cpu_us(peer.name))
    rounds.peer_rate.append(stretch.rate)
    await arena.stop_one(peer)


async def _floor(arena: Arena, size: _Size, rounds: _Rounds) -> None:
    postgres = cpu_seconds(arena.postgres)
    said = await processes.insert_floor(arena, size.floor_rows)
    rounds.floor_postgres.append((cpu_seconds(arena.postgres) - postgres) / said["rows"] * 1e6)
    rounds.floor_cpu.append(said["cpu_seconds"] / said["rows"] * 1e6)
    rounds.floor_rate.append(said["rows"] / said["seconds"])


def _figures(rounds: _Rounds, size: _Size) -> list[Figure]:
    insert = "bare batch insert"
    return [
        figure(
            "drain.rate",
            rounds.rate,
            "signatures/s",
            at_least(12_000, "signatures/s"),
            peer="FastStream, one at a time (verify alone)",
            peer_values=rounds.peer_rate,
            note="one verify and one tally at once, from the end of the warm-up until the last signature is counted",
        ),
        figure("drain.cpu.verify", rounds.cpu["verify"], "µs", at_most(55, "µs")),
        figure(
            "drain.cpu.verify.peer",
            rounds.cpu["verify"],
            "µs",
            times_less(8, "FastStream, one at a time"),
            peer="FastStream, one at a time",
            peer_values=rounds.peer_cpu,
        ),
        figure("drain.cpu.tally", rounds.cpu["tally"], "µs", note="in small batches, as they come from verify"),
        figure("drain.cpu.kafka", rounds.cpu["kafka"], "µs"),
        figure(
            "drain.cpu.postgres",
            rounds.cpu["postgres"],
            "µs",
            peer=insert,
            peer_values=rounds.floor_postgres,
            note="two tables with five indexes against one with two",
        ),
        figure("drain.cpu.valkey", rounds.cpu["valkey"], "µs"),
        figure(
            "drain.cost.whole",
            rounds.whole,
            "µs",
            at_most_times(1.1, f"the first {size.small:,}"),
            peer=f"the first {size.small:,}",
            peer_values=rounds.small,
            note=f"CPU of verify, tally and PostgreSQL per signature, over {size.records:,}",
        ),
        *(
            figure(f"drain.memory.{name}", rounds.rss[name], "MB", at_most(150, "MB"), note="the most RSS seen")
            for name in _SERVICES
        ),
        *(
            figure(
                f"drain.memory_growth.{name}",
                rounds.growth[name],
                "MB",
                at_most(10, "MB"),
                note=f"RSS after {size.records:,} signatures less RSS after {size.small:,}",
            )
            for name in _SERVICES
        ),
        *(figure(f"drain.bytes.{part}", values, "bytes/signature") for part, values in rounds.bytes.items()),
        figure("drain.floor.insert", rounds.floor_rate, "rows/s", note=insert),
        figure("drain.floor.insert_cpu", rounds.floor_cpu, "µs", note=f"{insert}, the client's side"),
    ]
