"""Effects one at a time: an actor stops before each of its calls to the outside, where it may be overtaken or killed.

A call may also fail before it arrives or before its answer does, which the caller cannot tell apart. Steps are at the client:
every statement and every commit in PostgreSQL, every command in Redis, every published record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from shared.postgres import Database
from tests.support.turns import Actor

T = TypeVar("T")

Fault = Literal["before", "after"]
"""Where a connection is cut: before the call arrived, or after it did and before its answer came back."""

Point = Literal["statement", "commit", "command", "script", "publish", "offset"]
"""The next effect of an actor: in PostgreSQL a statement or a commit; in Redis plain commands or a script; in Kafka a record
to publish or an offset to commit."""

DEADLOCK_TIMEOUT_MS = 5
"""`deadlock_timeout` of the model's database: PostgreSQL checks for a deadlock once, this long after a wait began."""

Where = int | tuple[Point, int]
"""A place in a batch: after so many effects, or before the first, second, ... following effect of a kind."""

_current: ContextVar[StepActor | None] = ContextVar("step_actor", default=None)


class StepActor(Actor):
    """An actor that executes one effect at a time. It may have to wait for a row that another actor's transaction has locked."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        super().__init__(work)
        self.fault: Fault | None = None
        self.before: Point | None = None
        """Its next effect. None: it has just begun, or waits for something else."""
        self.backend: int | None = None
        """The backend of its last PostgreSQL connection."""
        self.rounds = 0
        """How often it had nothing left to do."""
        self.waits = False
        """Whether it waits for a lock; it goes on by itself as soon as it can."""

    @property
    def at_rest(self) -> bool:
        """Whether it is before an effect, has ended, or has not begun."""
        return self._task is None or self._stopped.is_set()

    def go_on(self) -> None:
        """Let it execute one effect and run up to the next. Returns at once."""
        if not self.at_rest or self.ended:
            return
        self._stopped.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _: self._stopped.set())
        elif self._resume is not None:
            self._resume.set_result(None)

    def raise_if_failed(self) -> None:
        """Raise its exception, if it raised one."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    async def rest(self, seconds: float) -> None:
        """Wait until it is at rest, for at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _run(self) -> None:
        _current.set(self)
        await super()._run()


async def all_at_rest(actors: Iterable[StepActor], connection: asyncpg.Connection) -> None:
    """Wait until every actor is before an effect or waits for a lock. The choice of the next actor then decides what happens.

    Args:
        connection: Its own, to ask PostgreSQL which actors wait.
    """
    for actor in actors:
        if not actor.at_rest:
            await _at_rest(actor, connection)
        actor.raise_if_failed()


async def _at_rest(actor: StepActor, connection: asyncpg.Connection) -> None:
    if not actor.waits:
        await actor.rest(0.003)
    deadline = asyncio.get_running_loop().time() + 30
    while not actor.at_rest:
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError("an actor neither comes to its next effect nor waits for a lock")
        if not await _waits_for_lock(actor, connection):
            actor.waits = False
            await actor.rest(0.003)
        elif actor.waits:
            return
        else:
            # Wait until PostgreSQL has checked for a deadlock: then of two deadlocked actors always the second one fails.
            actor.waits = True
            await actor.rest(3 * DEADLOCK_TIMEOUT_MS / 1000)
    actor.waits = False


async def _waits_for_lock(actor: StepActor, connection: asyncpg.Connection) -> bool:
    if actor.backend is None:
        return False
    waits: bool = await connection.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", actor.backend)
    return waits


def round_done() -> None:
    """The actor has nothing left to do."""
    if (actor := _current.get()) is not None:
        actor.rounds += 1


async def effect(call: Callable[[], Awaitable[T]], point: Point) -> T:
    """Execute one effect that others can see; they may go on before it.

    Raises:
        ConnectionResetError: the actor's fault was due: the effect did not happen, or its answer was lost.
    """
    actor = _current.get()
    if actor is None:
        return await call()
    actor.before = point
    await actor.pause()
    actor.before = None
    fault, actor.fault = actor.fault, None
    if fault == "before":
        raise ConnectionResetError("cut on the way there")
    result = await call()
    if fault == "after":
        raise ConnectionResetError("cut on the way back")
    return result


# ---------------------------------------------------------------------------------------------------------- PostgreSQL


@dataclass
class Changes:
    """The number of effects that others may see: not those of an open transaction, nor reads."""

    number: int = 0


class _Statements:
    """The statements of a pool or a connection, each a step."""

    def __init__(self, real: Any, changes: Changes) -> None:
        self._real, self._changes = real, changes

    async def fetch(self, query: str, *arguments: Any, **options: Any) -> list[asyncpg.Record]:
        return await effect(lambda: self._real.fetch(query, *arguments, **options), "statement")

    async def fetchrow(self, query: str, *arguments: Any, **options: Any) -> asyncpg.Record | None:
        return await effect(lambda: self._real.fetchrow(query, *arguments, **options), "statement")

    async def fetchval(self, query: str, *arguments: Any, **options: Any) -> Any:
        return await effect(lambda: self._real.fetchval(query, *arguments, **options), "statement")

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        async def execute() -> str:
            self._changes.number += 1
            status: str = await self._real.execute(query, *arguments, **options)
            return status

        return await effect(execute, "statement")


class _Connection(_Statements):
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = self._real.transaction()
        await transaction.start()
        committed = False

        async def commit() -> None:
            nonlocal committed
            self._changes.number += 1
            await transaction.commit()
            committed = True

        try:
            yield
            await effect(commit, "commit")
        except BaseException:
            if not committed:
                await transaction.rollback()
            raise


class _Pool(_Statements):
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[_Connection]:
        async with self._real.acquire() as connection:
            if (actor := _current.get()) is not None:
                actor.backend = connection.get_server_pid()
            yield _Connection(connection, self._changes)


class SteppedDatabase(Database):
    """The real database: every statement is a step, and so is every commit."""

    def __init__(self, real: Database) -> None:
        self.changes = Changes()
        self._stepped = _Pool(real.pool, self.changes)

    @property
    def pool(self) -> Any:
        """The stepped pool."""
        return self._stepped


# --------------------------------------------------------------------------------------------------------------- Redis


class _SteppedPipeline(Pipeline):
    """One step; but other actors' commands may run between its scripts, as in Redis."""

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if not self.scripts:
            return await effect(lambda: super(_SteppedPipeline, self).execute(raise_on_error), "command")
        commands, scripts = [*self.command_stack], {*self.scripts}
        replies: list[Any] = []
        for command in commands:
            self.command_stack, self.scripts = [command], {*scripts}
            replies += await effect(lambda: super(_SteppedPipeline, self).execute(raise_on_error), "script")
        return replies


class SteppedRedis(Redis):
    """The real Redis: every command and every script is a step."""

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        execute: Any = super().execute_command
        return await effect(
            lambda: execute(*arguments, **options), "script" if arguments[0] == "EVALSHA" else "command"
        )

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _SteppedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
