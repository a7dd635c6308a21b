"""What the read side needs of the counts, and what it answers while they cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from redis.exceptions import RedisError

from services.tally.live import LiveHub
from services.tally.read_metrics import ReadMetrics
from shared.events import TallyUpdated
from shared.redis import reading_twice

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 5
"""How long a client waits when Redis is away: a restart or a failover takes a few seconds, and a retry costs little."""


class TallyReader(Protocol):
    """Reads live counts; `services.tally.store` has the one on Redis."""

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition, in one round trip.

        A petition without a signature yet has count 0, revision 0 and empty break-downs. One whose tally is damaged is
        left out.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
            OSError: Redis cannot be reached.
        """
        ...


class CountsAway(Exception):
    """The counts cannot be read now; the cause is the exception it was raised from."""


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
    """

    def __init__(self, reader: TallyReader, hub: LiveHub, metrics: ReadMetrics) -> None:
        self._reader, self._hub, self._metrics = reader, hub, metrics
        self._next: _Round | None = None
        self._rounds: asyncio.Task[None] | None = None

    async def of(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition.

        Raises:
            CountsAway: Redis does not answer.
        """
        if not petition_ids:
            return {}
        coming = self._next
        if coming is None:
            coming = self._next = _Round()
            if self._rounds is None or self._rounds.done():
                self._rounds = asyncio.create_task(self._read_rounds())
        coming.petition_ids.update(petition_ids)
        outcome = await asyncio.shield(coming.outcome)  # who gives up does not end it for the others
        if isinstance(outcome, RedisError | OSError):
            raise CountsAway from outcome
        if isinstance(outcome, Exception):
            raise outcome
        return {petition_id: self._newest(petition_id, outcome.get(petition_id)) for petition_id in petition_ids}

    async def _read_rounds(self) -> None:
        while (current := self._next) is not None:
            self._next = None
            try:
                current.outcome.set_result(await self._read(list(current.petition_ids)))
            except Exception as error:  # noqa: BLE001  theirs to raise, who wait for it
                if isinstance(error, RedisError | OSError):
                    cause = type(error).__name__
                    self._metrics.store_failures.labels(cause=cause).inc()
                    log.warning("counts_away", cause=cause, petitions=len(current.petition_ids))
                current.outcome.set_result(error)

    async def _read(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        return await reading_twice(lambda: self._reader.tallies(petition_ids))

    def _newest(self, petition_id: str, read: TallyUpdated | None) -> TallyUpdated:
        if read is None:
            # What Redis has is no tally. Until its owner has rebuilt it, the one that was announced last is shown.
            self._metrics.damaged.inc()
            announced = self._hub.announced(petition_id)
            if announced is None:
                raise CountsAway(f"the tally of {petition_id} is damaged, and none was announced")
            return announced
        newest = self._hub.newest(read)
        if newest is not read:
            self._metrics.behind.inc()
        return newest
