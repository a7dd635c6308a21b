"""The cost of a stretch of work: CPU seconds and memory from the operating system, bytes from the parts themselves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import asyncpg
import psutil
import redis.asyncio

from deploy.local.parts.process import Process

if TYPE_CHECKING:
    from tests.bench.setup.arena import Arena

MB: Final = 1024 * 1024
_LOOK_SECONDS: Final = 0.2
"""Seconds between two readings of the memory. Shorter peaks are missed; Groundswell has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Bytes written since the data directories were created.

    Attributes:
        kafka: by topic: the size of its log segments, after compression, without indexes.
        postgres: write-ahead log.
        redis: append-only file.
    """

    kafka: Mapping[str, int]
    postgres: int
    redis: int

    def since(self, earlier: Written) -> Written:
        """What was written between `earlier` and this."""
        return Written(
            kafka={topic: size - earlier.kafka.get(topic, 0) for topic, size in self.kafka.items()},
            postgres=self.postgres - earlier.postgres,
            redis=self.redis - earlier.redis,
        )

    @property
    def kafka_total(self) -> int:
        """Over all topics."""
        return sum(self.kafka.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resources used between two moments.

    Attributes:
        seconds: wall clock.
        cpu: CPU seconds, user and system, by process name; children included, also those that have ended.
        rss: bytes of resident memory at the end, by process name, children included. Memory that several processes of
            PostgreSQL share counts in each of them.
        rss_most: the highest value seen.
        written: bytes written by the parts.
    """

    seconds: float
    cpu: Mapping[str, float]
    rss: Mapping[str, int]
    rss_most: Mapping[str, int]
    written: Written

    def cpu_of(self, *names: str) -> float:
        """CPU seconds of these processes together; of all when none is named."""
        return sum(self.cpu[name] for name in names or self.cpu)

    def cpu_us(self, name: str, count: int) -> float:
        """CPU of one process per piece of work, in microseconds.

        Raises:
            ValueError: `count` is not positive: there was no work to measure.
        """
        if count <= 0:
            raise ValueError(f"{name} did none of the work that was to be measured")
        return self.cpu[name] / count * 1e6


class Meter:
    """Measures processes from `begin` to `end`; `async with Meter(…) as meter` does both, then see `meter.usage`.

    Args:
        arena: whose parts are asked for bytes; its parts are always among the measured processes.
        processes: what else is measured: services, peers, floors.
    """

    def __init__(self, arena: Arena, processes: Sequence[Process] = ()) -> None:
        self._arena = arena
        self._processes = {process.name: process for process in (*arena.parts, *processes)}
        self._cpu: dict[str, float] = {}
        self._rss_most: dict[str, int] = {}
        self._began = 0.0
        self._written: Written | None = None
        self._looking: asyncio.Task[None] | None = None
        self._usage: Usage | None = None

    @property
    def usage(self) -> Usage:
        """What was used. Only after `end`."""
        assert self._usage is not None, "the measurement has not ended"
        return self._usage

    async def begin(self) -> Self:
        """Start measuring."""
        self._written = await written(self._arena)
        self._looking = asyncio.create_task(self._look())
        self._began = time.monotonic()
        self._cpu = {name: cpu_seconds(process) for name, process in self._processes.items()}
        return self

    async def end(self) -> Usage:
        """Stop measuring and return what was used."""
        cpu = {name: cpu_seconds(process) - self._cpu[name] for name, process in self._processes.items()}
        seconds = time.monotonic() - self._began
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self._note_memory()
        assert self._written is not None
        self._usage = Usage(
            seconds=seconds,
            cpu=cpu,
            rss={name: rss_bytes(process) for name, process in self._processes.items()},
            rss_most=dict(self._rss_most),
            written=(await written(self._arena)).since(self._written),
        )
        return self._usage

    async def __aenter__(self) -> Self:
        return await self.begin()

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def _look(self) -> None:
        while True:
            self._note_memory()
            await asyncio.sleep(_LOOK_SECONDS)

    def _note_memory(self) -> None:
        for name, process in self._processes.items():
            self._rss_most[name] = max(self._rss_most.get(name, 0), rss_bytes(process))


def cpu_seconds(process: Process) -> float:
    """CPU seconds of a process and its children so far, those that have ended included (their parent has reaped them)."""
    total = 0.0
    for member in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def rss_bytes(process: Process) -> int:
    """Resident memory of a process and its children."""
    total = 0
    for member in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total


def _family(process: Process) -> list[psutil.Process]:
    """A process and its descendants."""
    if process.pid is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(process.pid), *_descendants(process.pid)]
    return []


def _descendants(pid: int) -> list[psutil.Process]:
    """psutil reads every process of the system to find descendants, too much load several times a second. Linux lists the
    children of each thread; in all processes that are measured here the first thread starts the children.
    """
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        children = [int(word) for word in listed.read_text(encoding="ascii").split()]
    except OSError:
        return psutil.Process(pid).children(recursive=True)
    found: list[psutil.Process] = []
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [psutil.Process(child), *_descendants(child)]
    return found


async def written(arena: Arena) -> Written:
    """What the parts have written so far."""
    return Written(
        kafka=_kafka_bytes(arena.kafka_log_directory),
        postgres=await _wal_bytes(arena.postgres.url),
        redis=await _append_only_bytes(arena.valkey.url),
    )


def _kafka_bytes(log_directory: Path) -> dict[str, int]:
    """Sizes of log segments by topic; a folder is named `<topic>-<partition>`."""
    sizes: dict[str, int] = {}
    for segment in log_directory.glob("*-*/*.log"):
        topic, _, partition = segment.parent.name.rpartition("-")
        if partition.isdigit() and not topic.startswith("__"):
            with contextlib.suppress(FileNotFoundError):  # the topic is being deleted
                sizes[topic] = sizes.get(topic, 0) + segment.stat().st_size
    return sizes


async def _wal_bytes(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))
    finally:
        await connection.close()


async def _append_only_bytes(url: str) -> int:
    async with redis.asyncio.Redis.from_url(url) as client:
        return int((await client.info("persistence"))["aof_current_size"])
