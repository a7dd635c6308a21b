"""Which failures are what. Four kinds, everywhere:

* **invalid** input: `InvalidRecord`; the record goes to the dead-letter topic, the rest of the batch goes on;
* **transient**: something this process depends on is away or busy; hold the position and try again. A `Collision` is
  transient only for a number of tries;
* **about the data**: a store refuses what is in the batch, and will refuse it again. `SetAside` names the records; for
  other errors (`is_about_the_data`) the consumer finds them by splitting the batch. They go to the dead-letter topic;
* **bug**: everything else; crash loudly, commit nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import asyncpg
import redis.exceptions
from aiokafka.errors import KafkaError, KafkaTimeoutError


class InvalidRecord(ValueError):
    """A record that no retry will make readable.

    ``reason`` is a short code for headers and metrics; ``detail`` says where the record is wrong, without its content.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SetAside(Exception):
    """Records of a batch that can be read and cannot be applied. `process` raises it when it knows which they are.

    Nothing of the batch needs to be done yet. The consumer writes these records to the dead-letter topic and calls
    `process` again with the others.

    Args:
        refused: By the record's index in the batch that `process` was given, why it cannot be applied.
    """

    def __init__(self, refused: Mapping[int, InvalidRecord]) -> None:
        if not refused:
            raise ValueError("SetAside without a record would be raised for ever")
        super().__init__(f"{len(refused)} records cannot be applied")
        self.refused = dict(refused)


class Collision(ConnectionError):
    """A rival wrote what this process wanted to write. Transient, and expected to pass within a few tries.

    When it does not, the cause is in the data: the consumer then splits the batch, as for `is_about_the_data`.
    """


CANNOT_BE_APPLIED: Final = "cannot_be_applied"
"""Reason of a dead letter: the record can be read, and a store refuses it each time."""

CANNOT_BE_READ: Final = "cannot_be_read"
"""Reason of a dead letter: reading the record raises an unexpected error, which is a bug of this version."""


_TRANSIENT_POSTGRES: tuple[type[Exception], ...] = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process had stopped for too long, and goes on now
    asyncpg.ReadOnlySQLTransactionError,  # connected to a standby during a failover
    asyncpg.InvalidAuthorizationSpecificationError,  # a password being rotated
)

_TRANSIENT_REDIS: tuple[type[Exception], ...] = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.NoPermissionError,  # the process waits until the right is granted
    redis.exceptions.NoScriptError,  # restarted between our look for the script and its use; the next try loads it
)

_TRANSIENT_REDIS_REPLIES = "MISCONF ", "NOREPLICAS ", "BUSY ", "can't run this command"
"""Replies that redis-py has no class for: it cannot save (disk full), too few replicas, a script that runs too long, and a
script's command that the user has no right to."""

_FILE_GROWS = "mdextend", "mdzeroextend"
"""Functions of PostgreSQL that make a table's file longer. When the disk is full that is a `DiskFullError`; when it is a
quota or another limit that ends the file, PostgreSQL has no better code for it than "internal error"."""

_ABOUT_THE_DATA: tuple[type[Exception], ...] = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.DataError,  # out of range, too long, characters that the database does not hold
    asyncpg.ProgramLimitExceededError,  # a value too large for an index
    asyncpg.CardinalityViolationError,  # a statement met two rows where there can be one
    asyncpg.WithCheckOptionViolationError,
    asyncpg.PLPGSQLError,  # a trigger that somebody added refuses the row
    asyncpg.TriggeredActionError,
    asyncpg.TriggeredDataChangeViolationError,
    asyncpg.ExternalRoutineError,
    asyncpg.DataCorruptedError,  # a damaged page: what is on other pages can go on
    asyncpg.IndexCorruptedError,
)

_ROW_POLICY = "ExecWithCheckOptions"
"""The function of PostgreSQL that applies row-level security. Its error has the code of a missing privilege."""

_LOST_CONNECTION = "connection is closed", "connection was closed", "pool is closing"


def is_transient(error: BaseException) -> bool:
    """Whether waiting can help: the network, Kafka, PostgreSQL or Redis is away, busy, full, or changing its leader."""
    if isinstance(error, asyncio.CancelledError):
        return False
    if isinstance(error, KafkaError):
        return bool(error.retriable) or isinstance(error, KafkaTimeoutError) or _connection_lost(error)
    if isinstance(error, asyncpg.InterfaceError):
        return any(mark in str(error) for mark in _LOST_CONNECTION)
    if isinstance(error, asyncpg.InternalClientError):
        # How asyncpg reports that the server said goodbye in the middle of its own exchange. No connection is shared
        # between tasks here, so there is no other way to "another operation".
        return "another operation" in str(error)
    if isinstance(error, asyncpg.InternalServerError):
        return error.server_source_function in _FILE_GROWS
    if isinstance(error, redis.exceptions.ResponseError) and any(
        mark in str(error) for mark in _TRANSIENT_REDIS_REPLIES
    ):
        return True
    if isinstance(error, OSError):
        return error.filename is None  # an error about a file is not about a connection: waiting makes no file appear
    return isinstance(error, (*_TRANSIENT_POSTGRES, *_TRANSIENT_REDIS))


def is_about_the_data(error: BaseException) -> bool:
    """Whether PostgreSQL refuses something in the batch, so that waiting cannot help and leaving it out can."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return error.server_source_function == _ROW_POLICY
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)  # asyncpg itself cannot encode a value
    return isinstance(error, _ABOUT_THE_DATA)


def without_content(error: BaseException) -> str:
    """What kind of error it is and which constraint it is about, without any value.

    The message and DETAIL of PostgreSQL repeat values of the row, so neither is used.
    """
    parts = [type(error).__name__]
    if isinstance(error, asyncpg.PostgresError):
        fields = ("constraint_name", "table_name", "column_name", "data_type_name")
        if error.sqlstate:
            parts.append(f"SQLSTATE {error.sqlstate}")
        parts += [
            f"{field.removesuffix('_name')} {value}" for field in fields if (value := getattr(error, field, None))
        ]
    elif isinstance(error, Collision):
        parts.append(str(error))  # ours, and made without content
    return ", ".join(parts)


def _connection_lost(error: KafkaError) -> bool:
    return "closed" in str(error).lower() or "connection" in type(error).__name__.lower()
