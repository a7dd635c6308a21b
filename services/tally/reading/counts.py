"""Reads the counts for the API and the pages; while Redis does not answer, returns the newest known ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from redis.exceptions import RedisError

from services.tally.reading.live import LiveHub
from services.tally.reading.metrics import ReadMetrics
from shared.contract.events import TallyUpdated
from shared.redis import reading_twice

log = structlog.get_logger(__name__)

READ_SECONDS: Final = 0.2
"""The longest wait of a reader for Redis, which usually answers within a few milliseconds. A petition's text and form need
no count, and the announced count is at most a quarter of a second older than Redis' own."""

PROBE_SECONDS: Final = 0.5
"""Time between two probes while Redis does not answer, and so the longest wait for fresh counts after its return."""

RETRY_AFTER_SECONDS: Final = 5
"""Retry-After while Redis is away: a restart or a failover takes a few seconds, and a retry costs little."""


class TallyReader(Protocol):
    """Reads live counts; `services.tally.counting.redis_store` implements it on Redis."""

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition, in one round trip.

        A petition without signatures has count 0, revision 0 and empty break-downs. Petitions whose tallies are damaged
        are left out.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
            OSError: Redis cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """The known counts of some petitions."""

    tallies: Mapping[str, TallyUpdated]
    """By petition id. A petition is missing if Redis has no answer for it and no earlier count is known."""
    stale: frozenset[str]
    """The petitions for which Redis has no answer: their tallies are the newest ones announced or read before."""


class _Round:
    """Petitions that are read together, for all readers that asked for one of them meanwhile."""

    def __init__(self) -> None:
        self.petition_ids: set[str] = set()
        # The result, or an error as a value, which each waiting reader raises itself.
        self.outcome: asyncio.Future[dict[str, TallyUpdated] | Exception] = asyncio.get_running_loop().create_future()


class CurrentTallies:
    """The newest tally that this process knows: the one in Redis, or the announced one if that is newer.

    After Redis lost state it is older for a moment: until it is rebuilt, a petition would show 0 supporters. The announced
    snapshots (`LiveHub`) carry versions of the same ledger, so the higher version is right.

    Concurrent reads are combined: one round asks Redis at a time, and readers that come meanwhile join the next round, so
    that no reader gets a count from before its request. A crowd costs as much as one reader, and one connection.

    A circuit breaker keeps readers from waiting for a Redis that does not answer. The first read that fails or takes longer
    than `read_seconds` opens it; then readers do not wait, and a single task probes Redis. An answer closes it.

    Args:
        reader: Reads from Redis.
        hub: Knows the announced snapshots.
        metrics: The metrics of the read side.
        read_seconds: The longest wait of a reader for Redis.
        probe_seconds: Time between two probes while the circuit is open.
    """

    def __init__(
        self,
        reader: TallyReader,
        hub: LiveHub,
        metrics: ReadMetrics,
        *,
        read_seconds: float = READ_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._reader, self._hub, self._metrics = reader, hub, metrics
        self._read_seconds, self._probe_seconds = read_seconds, probe_seconds
        self._next: _Round | None = None
        self._rounds: asyncio.Task[None] | None = None
        self._probes: asyncio.Task[None] | None = None
        self._open = False
        # The last answer of Redis by petition, so that no reader gets an older count than an earlier one.
        self._last: dict[str, TallyUpdated] = {}

    async def of(self, petition_ids: Sequence[str]) -> Counts:
        """The known counts of these petitions, within `read_seconds`."""
        if not petition_ids:
            return Counts({}, frozenset())
        read = await self._from_redis(petition_ids)
        if read is None:
            return self._known(petition_ids)
        self._last.update(read)
        damaged = [petition_id for petition_id in petition_ids if petition_id not in read]
        # The stored values of these are not valid tallies. Until their owner has rebuilt them, the newest known are shown.
        self._metrics.damaged.inc(len(damaged))
        counts = self._known(damaged)
        tallies = {petition_id: self._newest(read[petition_id]) for petition_id in petition_ids if petition_id in read}
        return Counts({**tallies, **counts.tallies}, counts.stale)

    async def _from_redis(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated] | None:
        """The tallies in Redis; None if it does not answer in time."""
        if self._open:
            return None
        coming = self._join(petition_ids)
        await asyncio.wait(
            [coming.outcome], timeout=self._read_seconds
        )  # the round goes on, for other readers and as a probe
        if not coming.outcome.done():
            self._fail("too_slow", list(coming.petition_ids))
            return None
        outcome = coming.outcome.result()
        if isinstance(outcome, RedisError | OSError):
            return None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _join(self, petition_ids: Sequence[str]) -> _Round:
        if self._next is None:
            self._next = _Round()
            if self._rounds is None or self._rounds.done():
                self._rounds = asyncio.create_task(self._read_rounds())
        self._next.petition_ids.update(petition_ids)
        return self._next

    async def _read_rounds(self) -> None:
        while (current := self._next) is not None:
            self._next = None
            petition_ids = list(current.petition_ids)
            try:
                read = await reading_twice(lambda: self._reader.tallies(petition_ids))  # noqa: B023  awaited at once
            except Exception as error:  # noqa: BLE001  the waiting readers raise it
                if isinstance(error, RedisError | OSError):
                    self._fail(type(error).__name__, petition_ids)
                else:
                    self._close()  # a bug must reach a reader, and not be swallowed by a probe
                current.outcome.set_result(error)
            else:
                self._close()
                current.outcome.set_result(read)

    def _fail(self, cause: str, petition_ids: Sequence[str]) -> None:
        self._metrics.store_failures.labels(cause=cause).inc()
        if self._open:
            return
        self._open = True
        self._metrics.circuit_open.set(1)
        log.warning("counts_away", cause=cause)
        if self._probes is None or self._probes.done():
            self._probes = asyncio.create_task(self._probe(petition_ids[:1]))

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._metrics.circuit_open.set(0)
            log.info("counts_back")

    async def _probe(self, petition_ids: Sequence[str]) -> None:
        """Probe Redis until it answers. A read that no reader waits for any longer is a probe, too."""
        while self._open:
            if self._rounds is None or self._rounds.done():
                await asyncio.sleep(self._probe_seconds)
                self._join(petition_ids)
            assert self._rounds is not None
            await asyncio.wait([self._rounds])

    def _known(self, petition_ids: Sequence[str]) -> Counts:
        found = {}
        for petition_id in petition_ids:
            last = self._last.get(petition_id)
            known = self._hub.announced(petition_id) if last is None else self._hub.newest(last)
            if known is not None:
                found[petition_id] = known
        return Counts(found, frozenset(petition_ids))

    def _newest(self, read: TallyUpdated) -> TallyUpdated:
        newest = self._hub.newest(read)
        if newest is not read:
            self._metrics.behind.inc()
        return newest
