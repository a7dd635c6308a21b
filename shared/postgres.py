"""PostgreSQL: the connection pool of every service, its readiness check, and the classification of errors."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import asyncpg
import structlog

from shared.runtime.backoff import Backoff
from shared.runtime.failures import DriverErrors, is_transient
from shared.runtime.unreachable import why

log = structlog.get_logger(__name__)

Pool = asyncpg.Pool
Connection = asyncpg.Connection

_SILENT_SECONDS: Final = 10
"""A process that stops within a transaction (frozen, or cut off from the network) holds its locks, and the new owner of its
partitions waits for them. PostgreSQL ends such a transaction after this time. It equals the default session timeout of a
consumer, and is far longer than the time between two statements of any transaction here."""


_BACKOFF: Final = Backoff(0.1, 5.0)
"""Seconds between two attempts to open the pool."""


class Database:
    """A connection pool that can be opened while PostgreSQL is away.

    Args:
        url: ``postgresql://user:password@host:port/database``.
        application: The name in pg_stat_activity.
        size: Maximum number of connections. A service processes one batch at a time, so a few suffice; more would only
            move the queue into PostgreSQL.
    """

    def __init__(self, url: str, *, application: str, size: int = 4) -> None:
        self._url, self._application, self._size = url, application, size
        self._pool: Pool | None = None
        self._away = "PostgreSQL has not answered yet"

    @property
    def pool(self) -> Pool:
        """The pool.

        Raises:
            ConnectionError: it is not open yet. Transient: retry.
        """
        if self._pool is None:
            raise ConnectionError(self._away)
        return self._pool

    async def open(self) -> None:
        """Connect, and retry while PostgreSQL is away. Run it in the background to serve HTTP meanwhile."""
        failures = 0
        while self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=self._size,
                    # A statement that takes this long is blocked; the caller retries it.
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
                failures += 1
                wait = _BACKOFF.after(failures)
                self._away = f"PostgreSQL is away: {why(error)}"
                log.warning("postgres_away", cause=type(error).__name__, reason=why(error), wait=wait)
                await asyncio.sleep(wait)

    async def close(self) -> None:
        """Close the pool; connections in use get two seconds."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def check(self) -> str | None:
        """Readiness check: PostgreSQL answers a query."""
        if self._pool is None:
            return self._away
        await self.pool.fetchval("SELECT 1")
        return None


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


# Failures -------------------------------------------------------------------------------------------------------------

_TRANSIENT: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process was stopped for too long and runs again
    asyncpg.ReadOnlySQLTransactionError,  # connected to a standby during a failover
    asyncpg.InvalidAuthorizationSpecificationError,  # a password being rotated
)

_FILE_GROWS = "mdextend", "mdzeroextend"
"""Functions of PostgreSQL that extend a table's file. If the disk is full they raise a `DiskFullError`; for a quota or
another limit of the file, PostgreSQL has no better code than "internal error"."""

_ABOUT_THE_DATA: tuple[type[Exception], ...] = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,  # out of range, too long, characters that the database cannot store
    asyncpg.ProgramLimitExceededError,  # a value too large for an index
    asyncpg.CardinalityViolationError,  # a statement found two rows where only one is allowed
    asyncpg.WithCheckOptionViolationError,
    asyncpg.PLPGSQLError,  # a trigger that an operator added refuses the row
    asyncpg.TriggeredActionError,
    asyncpg.TriggeredDataChangeViolationError,
    asyncpg.ExternalRoutineError,
    asyncpg.DataCorruptedError,  # a damaged page: rows on other pages are not affected
    asyncpg.IndexCorruptedError,
)

_ROW_POLICY = "ExecWithCheckOptions"
"""The function of PostgreSQL that enforces row-level security. Its error has the code of a missing privilege."""

_LOST_CONNECTION = "connection is closed", "connection was closed", "pool is closing"


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, asyncpg.InterfaceError):
        return any(mark in str(error) for mark in _LOST_CONNECTION)
    if isinstance(error, asyncpg.InternalClientError):
        # asyncpg reports in this way that the server closed the connection during asyncpg's own exchange. Tasks here share
        # no connection, so "another operation" has no other cause.
        return "another operation" in str(error)
    if isinstance(error, asyncpg.InternalServerError):
        return error.server_source_function in _FILE_GROWS
    return isinstance(error, _TRANSIENT)


def _is_about_the_data(error: BaseException) -> bool:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return error.server_source_function == _ROW_POLICY
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)  # asyncpg itself cannot encode a value
    return isinstance(error, _ABOUT_THE_DATA)


def _details(error: BaseException) -> list[str]:
    """Return the SQLSTATE and the constraint concerned. Message and DETAIL repeat values of the row, so neither is used."""
    if not isinstance(error, asyncpg.PostgresError):
        return []
    fields = ("constraint_name", "table_name", "column_name", "data_type_name")
    code = [f"SQLSTATE {error.sqlstate}"] if error.sqlstate else []
    return code + [
        f"{field.removesuffix('_name')} {value}" for field in fields if (value := getattr(error, field, None))
    ]


def _why(error: BaseException) -> str | None:
    # Includes "no pg_hba.conf entry": not from this host, or not unencrypted.
    return "the login is refused" if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError) else None


ERRORS: Final = DriverErrors(
    is_transient=_is_transient, is_about_the_data=_is_about_the_data, details=_details, why=_why
)
"""See `shared.runtime.failures`."""
