"""The progress and cost of consumers, moment by moment.

A cost per record is the difference between two moments of one run: CPU seconds over committed records. What happens before
the first of them (start, imports, first connections, warm-up) is not included, for any consumer, and no consumer has to be
held back meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # documented there

from deploy.local.parts.process import PartFailed, Process
from tests.bench.measuring.measure import cpu_seconds, rss_bytes

_ASK_SECONDS: Final = 20.0
_COORDINATOR_STARTS: Final = (
    GroupLoadInProgressError,
    GroupCoordinatorNotAvailableError,
    NotCoordinatorForGroupError,
)
"""Errors of a broker about its groups just after its start."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer group and the topic that it reads."""

    group: str
    topic: str


VERIFY: Final = Reader("groundswell-verify", "signatures.submitted.v1")
TALLY: Final = Reader("groundswell-tally", "signatures.verified.v1")


@cache
def _client(bootstrap_servers: str) -> AdminClient:
    """A client that lives as long as the process: librdkafka crashes when a client is destroyed that still waits for an answer,
    and callers here may be cancelled."""
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


_groups: dict[str, AIOKafkaAdminClient] = {}


async def _group_client(bootstrap_servers: str) -> AIOKafkaAdminClient:
    """Another client, just as long-lived, for the groups' offsets: librdkafka 2.16 crashes when it requests them while the
    broker still loads its groups."""
    if bootstrap_servers not in _groups:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await client.start()
        _groups[bootstrap_servers] = client
    return _groups[bootstrap_servers]


class Broker:
    """Reads offsets from Kafka, summed over a topic's partitions.

    Args:
        bootstrap_servers: the broker's address.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin = _client(bootstrap_servers)

    async def committed(self, reader: Reader) -> int:
        """The number of committed records of the group's topic; 0 if it has not joined yet."""
        client = await _group_client(self._bootstrap_servers)
        while True:
            try:
                found = await client.list_consumer_group_offsets(reader.group)
                break
            except _COORDINATOR_STARTS:
                await asyncio.sleep(0.1)
        return sum(end.offset for place, end in found.items() if place.topic == reader.topic and end.offset > 0)

    async def written(self, topic: str) -> int:
        """How many records the topic has."""
        known = await asyncio.to_thread(lambda: self._admin.list_topics(topic, timeout=_ASK_SECONDS))
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(topic, number): latest for number in known.topics[topic].partitions}
        asked = self._admin.list_offsets(wanted, request_timeout=_ASK_SECONDS)
        return sum([(await asyncio.wrap_future(end)).offset for end in asked.values()])

    async def lag(self, readers: Sequence[Reader]) -> int:
        """How many records these groups have not committed, together."""
        return sum([await self.written(reader.topic) - await self.committed(reader) for reader in readers])


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at one moment.

    Attributes:
        at: monotonic seconds.
        done: committed records by reader.
        cpu: CPU seconds by process name.
        rss: resident bytes by process name.
    """

    at: float
    done: Mapping[Reader, int]
    cpu: Mapping[str, float]
    rss: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stretch:
    """The stretch between two moments of a course, for one reader."""

    reader: Reader
    first: Moment
    last: Moment

    @property
    def records(self) -> int:
        """How many records the reader committed.

        Raises:
            ValueError: none: there is nothing to divide by.
        """
        done = self.last.done[self.reader] - self.first.done[self.reader]
        if done <= 0:
            raise ValueError(f"{self.reader.group} committed nothing between the two moments")
        return done

    @property
    def seconds(self) -> float:
        """Wall clock."""
        return self.last.at - self.first.at

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    def cpu_us(self, *names: str) -> float:
        """CPU of these processes together per record, in microseconds."""
        return sum(self.last.cpu[name] - self.first.cpu[name] for name in names) / self.records * 1e6


class Course:
    """Moments, in order.

    Attributes:
        moments: at least one.
    """

    def __init__(self) -> None:
        self.moments: list[Moment] = []

    def stretch(self, reader: Reader, start: int, end: int, *, until: Reader | None = None) -> Stretch:
        """From the first moment at which `reader` has committed `start` records to the first at which it has `end`.

        Args:
            until: another reader: the stretch then lasts until the end of the course, when that one has finished too.

        Raises:
            ValueError: the course does not reach so far.
        """
        first = next((seen for seen in self.moments if seen.done[reader] >= start), None)
        last = next((seen for seen in self.moments if seen.done[reader] >= end), None)
        if first is None or last is None:
            raise ValueError(f"{reader.group} has not come to {end} records")
        return Stretch(reader, first, self.moments[-1] if until is not None else last)

    def rss_most(self, name: str) -> int:
        """The highest resident memory seen of a process, in bytes."""
        return max(seen.rss[name] for seen in self.moments)


class Watch:
    """Records the progress of readers and the cost of processes.

    Args:
        broker: for reading offsets.
        readers: whose offsets.
        processes: whose CPU and memory.
        every: seconds between two moments. Each costs about 10 ms, which are in no figure.
    """

    def __init__(
        self, broker: Broker, readers: Sequence[Reader], processes: Sequence[Process], *, every: float = 0.25
    ) -> None:
        self._broker, self._readers, self._processes, self._every = broker, readers, processes, every
        self.course = Course()

    async def look(self) -> Moment:
        """Add the present moment to the course."""
        for process in self._processes:
            if process.ended_by_itself:
                raise PartFailed(process.describe_end())
        done = {reader: await self._broker.committed(reader) for reader in self._readers}
        moment = Moment(
            time.monotonic(),
            done,
            {process.name: cpu_seconds(process) for process in self._processes},
            {process.name: rss_bytes(process) for process in self._processes},
        )
        self.course.moments.append(moment)
        return moment

    async def until(self, wanted: Mapping[Reader, int], *, timeout_seconds: float) -> Self:
        """Record moments until every reader has committed as many records as wanted.

        Raises:
            PartFailed: a process ended, or the readers did not get there in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            moment = await self.look()
            if all(moment.done[reader] >= number for reader, number in wanted.items()):
                return self
            if time.monotonic() > deadline:
                came = ", ".join(
                    f"{reader.group} to {moment.done[reader]:,} of {wanted[reader]:,}" for reader in wanted
                )
                raise PartFailed(f"not done within {timeout_seconds:.0f} s: {came}")
            await asyncio.sleep(self._every)
