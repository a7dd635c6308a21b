"""Redis or Valkey: one client for all, the identity of the data it holds, and what its errors mean.

Redis may lose state without an error: flushed, restarted from an older file, failed over to a replica that lagged. Two
signs show it. ``run_id`` changes with every start of a server. The incarnation is a key of our own, made at random when
it is missing, so it changes when everything was deleted.
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
    """A client for ``redis://`` or ``rediss://``. It connects when first used and never retries by itself.

    A retry behind our back could run a command on a server that restarted in between; the callers here must know.
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
    """Read, and once more if the connection turns out to be dead.

    A connection that has lain idle since before Redis was restarted is found dead only when it is used. Reading again does
    no harm, and the pool gives another connection.

    Raises:
        redis.exceptions.RedisError, OSError: Redis does not answer the second time either.
    """
    try:
        return await read()
    except (RedisConnectionError, OSError):
        return await read()


async def identity(redis: Redis) -> str:
    """Which data this is: ``run_id/incarnation``. The same string twice means that nothing was lost in between.

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
            # Somebody has put another kind of value in its place. Which data this is, nobody knows any more.
            await redis.delete(INCARNATION_KEY)
            return await identity(redis)
    return f"{server['run_id']}/{incarnation}"


async def check(redis: Redis) -> str | None:
    """Readiness: does it answer?"""
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
    exceptions.NoPermissionError,  # the process waits until the right is granted
    exceptions.NoScriptError,  # restarted between our look for the script and its use; the next try loads it
)

_TRANSIENT_REPLIES = "MISCONF ", "NOREPLICAS ", "BUSY ", "can't run this command"
"""Replies that redis-py has no class for: it cannot save (disk full), too few replicas, a script that runs too long, and a
script's command that the user has no right to."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, ResponseError) and any(mark in str(error) for mark in _TRANSIENT_REPLIES):
        return True
    return isinstance(error, _TRANSIENT)


def _why(error: BaseException) -> str | None:
    return "the login is refused" if isinstance(error, exceptions.AuthenticationError) else None


ERRORS: Final = DriverErrors(is_transient=_is_transient, why=_why)
"""See `shared.runtime.failures`."""
