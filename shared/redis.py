"""Redis or Valkey: the client, the identity of the stored data, and the classification of errors.

Redis may lose state without an error: by a flush, a restart from an older file, a failover to a lagging replica. Two values
reveal it. ``run_id`` changes with every start of a server. The incarnation is a key of our own, with a random value set
when it is missing, so it changes after everything was deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.runtime.failures import DriverErrors

_Read = TypeVar("_Read")

INCARNATION_KEY: Final = "groundswell:incarnation"


def connect(url: str) -> Redis:
    """Return a client for ``redis://`` or ``rediss://``. It connects on first use and never retries by itself.

    An automatic retry could run a command on a server that was restarted in between; the callers must notice that.
    """
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=5,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
        client_name="groundswell-tally",
    )


async def reading_twice(read: Callable[[], Awaitable[_Read]]) -> _Read:
    """Call `read`, and once more if its connection is dead.

    An idle connection from before a restart of Redis turns out to be dead only when it is used. A read can be repeated, and
    the pool then gives another connection.

    Raises:
        redis.exceptions.RedisError, OSError: Redis does not answer the second time either.
    """
    try:
        return await read()
    except (RedisConnectionError, OSError):
        return await read()


async def identity(redis: Redis) -> str:
    """Return the identity of the data: ``run_id/incarnation``. If it is unchanged, nothing was lost in between.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set(INCARNATION_KEY, secrets.token_hex(8), nx=True)
        pipe.get(INCARNATION_KEY)
        pipe.info("server")
        try:
            _, incarnation, server = await pipe.execute()
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            # The key was overwritten with another type of value, so the identity of the data is unknown.
            await redis.delete(INCARNATION_KEY)
            return await identity(redis)
    return f"{server['run_id']}/{incarnation}"


async def check(redis: Redis) -> str | None:
    """Readiness check: Redis answers a PING."""
    await redis.ping()
    return None


# Failures -------------------------------------------------------------------------------------------------------------

_TRANSIENT: tuple[type[Exception], ...] = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.NoPermissionError,  # the process waits until the permission is granted
    exceptions.NoScriptError,  # Redis restarted after we looked for the script; the next try loads it
)

_TRANSIENT_REPLIES = "MISCONF ", "NOREPLICAS ", "BUSY ", "can't run this command"
"""Replies for which redis-py has no class: Redis cannot save (disk full), too few replicas, a script that runs too long, a
command in a script for which the user has no permission."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ResponseError) and any(mark in str(error) for mark in _TRANSIENT_REPLIES):
        return True
    return isinstance(error, _TRANSIENT)


def _why(error: BaseException) -> str | None:
    return "the login is refused" if isinstance(error, exceptions.AuthenticationError) else None


ERRORS: Final = DriverErrors(is_transient=_is_transient, why=_why)
"""See `shared.runtime.failures`."""
