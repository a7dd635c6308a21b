"""What the read side needs of the counts, and what it answers while they cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from services.tally.live import LiveHub
from services.tally.read_metrics import ReadMetrics
from shared.events import TallyUpdated

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 5
"""How long a client waits when Redis is away: a restart or a failover takes a few seconds, and a retry costs little."""


class TallyReader(Protocol):
    """Reads live counts; `services.tally.store` has the one on Redis."""

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition, in one round trip.

        A petition without a signature yet has count 0, revision 0 and empty break-downs.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
            OSError: Redis cannot be reached.
        """
        ...


class CountsAway(Exception):
    """The counts cannot be read now; the cause is the exception it was raised from."""


class CurrentTallies:
    """The newest tally that this process can know of: Redis', or the one that was announced, if that is newer.

    Redis is older for a moment after it lost state: until a writer has rebuilt it, a petition would show 0 supporters.
    The announced snapshots (`LiveHub`) carry revisions of the same ledger, so the higher revision is the right one.
    """

    def __init__(self, reader: TallyReader, hub: LiveHub, metrics: ReadMetrics) -> None:
        self._reader, self._hub, self._metrics = reader, hub, metrics

    async def of(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tally of each petition.

        Raises:
            CountsAway: Redis does not answer.
        """
        if not petition_ids:
            return {}
        try:
            read = await self._read(petition_ids)
        except (RedisError, OSError) as error:
            cause = type(error).__name__
            self._metrics.store_failures.labels(cause=cause).inc()
            log.warning("counts_away", cause=cause, petitions=len(petition_ids))
            raise CountsAway from error
        return {petition_id: self._newest(read[petition_id]) for petition_id in petition_ids}

    async def _read(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        try:
            return await self._reader.tallies(petition_ids)
        except (RedisConnectionError, OSError):
            # A connection that has lain idle since before Redis was restarted is found dead only now. Reading again does
            # no harm, and the pool gives another connection.
            return await self._reader.tallies(petition_ids)

    def _newest(self, read: TallyUpdated) -> TallyUpdated:
        newest = self._hub.newest(read)
        if newest is not read:
            self._metrics.behind.inc()
        return newest
