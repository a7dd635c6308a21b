"""Reads the counts for the API and the pages; while Redis does not answer, gives the newest that are known."""

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
"""How long a reader waits for Redis, which answers within a few milliseconds. The text of a petition and its form need no
count, and a count that was announced is at most a quarter of a second older than Redis' own."""

PROBE_SECONDS: Final = 0.5
"""Between two tries to reach Redis while it does not answer: what a reader waits at most for fresh counts after its return."""

RETRY_AFTER_SECONDS: Final = 5
"""How long a client waits when Redis is away: a restart or a failover takes a few seconds, and a retry costs little."""


class TallyReader(Protocol):
    """Reads live counts; `services.tally.counting.redis_store` has the one on Redis."""

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition, in one round trip.

        A petition without a signature yet has count 0, revision 0 and empty break-downs. One whose tally is damaged is
        left out.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
            OSError: Redis cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of the counts of some petitions."""

    tallies: Mapping[str, TallyUpdated]
    """By petition id. A petition is missing if Redis has no answer for it and nothing was known of it before."""
    stale: frozenset[str]
    """The petitions for which Redis has no answer: their tallies are the newest that were announced or read before."""


class _Round:
    """Petitions that are read together, for everyone who asked for one of them meanwhile."""

    def __init__(self) -> None:
        self.petition_ids: set[str] = set()
        # What it ends with, also if that is an error: each who waits raises its own.
        self.outcome: asyncio.Future[dict[str, TallyUpdated] | Exception] = asyncio.get_running_loop().create_future()


class CurrentTallies:
    """The newest tally that this process can know of: Redis', or the one that was announced, if that is newer.

    Redis is older for a moment after it lost state: until a writer has rebuilt it, a petition would show 0 supporters.
    The announced snapshots (`LiveHub`) carry versions of the same ledger, so the higher version is the right one.

    However many ask at once, Redis is asked by one of them: while it answers, whoever comes joins the next round, so that
    nobody is given a count of before the request. A crowd costs as much as a reader, and no connection each.

    A circuit keeps readers from waiting for a Redis that does not answer. It opens with the first read that fails or takes
    longer than `read_seconds`; from then on nobody waits, and one task alone tries until Redis answers. That closes it.

    Args:
        reader: Reads from Redis.
        hub: Knows what was announced.
        metrics: Where it is counted.
        read_seconds: How long a reader waits for Redis at most.
        probe_seconds: Between two tries while the circuit is open.
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
        # What Redis said last of each petition that was asked for: so nobody is given an older count than before.
        self._last: dict[str, TallyUpdated] = {}

    async def of(self, petition_ids: Sequence[str]) -> Counts:
        """What is known of the counts of these petitions, within `read_seconds`."""
        if not petition_ids:
            return Counts({}, frozenset())
        read = await self._from_redis(petition_ids)
        if read is None:
            return self._known(petition_ids)
        self._last.update(read)
        damaged = [petition_id for petition_id in petition_ids if petition_id not in read]
        # What Redis has of these is no tally. Until their owner has rebuilt it, the newest that is known is shown.
        self._metrics.damaged.inc(len(damaged))
        counts = self._known(damaged)
        tallies = {petition_id: self._newest(read[petition_id]) for petition_id in petition_ids if petition_id in read}
        return Counts({**tallies, **counts.tallies}, counts.stale)

    async def _from_redis(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated] | None:
        """What Redis has; None if it does not answer in time."""
        if self._open:
            return None
        coming = self._join(petition_ids)
        await asyncio.wait([coming.outcome], timeout=self._read_seconds)  # it goes on for the others, and as a probe
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
            except Exception as error:  # noqa: BLE001  theirs to raise, who wait for it
                if isinstance(error, RedisError | OSError):
                    self._fail(type(error).__name__, petition_ids)
                else:
                    self._close()  # a bug is for a reader to meet, and not for a probe to swallow
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
        """Try until Redis answers. A read that nobody waits for any longer is a try, too."""
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
