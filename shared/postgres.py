"""PostgreSQL: the pool that every service uses, and its readiness check."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import asyncpg
import structlog

from shared.kafka.errors import is_transient
from shared.runtime.unreachable import why

log = structlog.get_logger(__name__)

Pool = asyncpg.Pool
Connection = asyncpg.Connection

_SILENT_SECONDS: Final = 10
"""A process that has stopped in the middle of a transaction (frozen, or cut off from the network) holds its locks, and
whoever took its partitions over waits for them. PostgreSQL ends such a transaction after this time: as long as the
session of a consumer, far longer than any of ours takes between two statements."""


class Database:
    """A connection pool that may be opened while PostgreSQL is still away.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        application: Shown in pg_stat_activity.
        size: Most connections. A service works on one batch at a time, so a few do; more only move the queue into
            PostgreSQL.
    """

    def __init__(self, url: str, *, application: str, size: int = 4) -> None:
        self._url, self._application, self._size = url, application, size
        self._pool: Pool | None = None
        self._away = "PostgreSQL has not answered yet"

    @property
    def pool(self) -> Pool:
        """The pool.

        Raises:
            ConnectionError: it could not be opened yet; trying again later can help.
        """
        if self._pool is None:
            raise ConnectionError(self._away)
        return self._pool

    async def open(self) -> None:
        """Connect, trying again for as long as PostgreSQL is away. Run it in the background to serve HTTP meanwhile."""
        backoff = 0.1
        while self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._size,
                    # A statement that takes this long is stuck behind something; the caller tries again.
                    command_timeout=30,
                    timeout=5,
                    init=_speak_json,
                    server_settings={
                        "application_name": f"groundswell-{self._application}",
                        "timezone": "UTC",
                        "idle_in_transaction_session_timeout": f"{_SILENT_SECONDS}s",
                    },
                )
            except Exception as error:
                if not is_transient(error):
                    raise
                self._away = f"PostgreSQL is away: {why(error)}"
                log.warning("postgres_away", cause=type(error).__name__, reason=why(error), wait=backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 5.0)

    async def close(self) -> None:
        """Close the pool; connections in use are given two seconds."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def check(self) -> str | None:
        """Readiness: does it answer?"""
        if self._pool is None:
            return self._away
        await self.pool.fetchval("SELECT 1")
        return None


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
