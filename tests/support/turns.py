"""Random interleavings of real code: actors stop before every call to the outside and go on one at a time.

A seed decides which one goes on, so a finding can be repeated. An actor that is never resumed was killed at that point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Self

_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


class Actor:
    """A coroutine that runs one step at a time, until it ends or is killed.

    Args:
        work: What it does.
        blocks: Whether its calls may wait for another actor, as for a row that another transaction has locked. It then
            goes on by itself as soon as it can.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], *, blocks: bool = False) -> None:
        self._work, self._blocks = work, blocks
        self._resume: asyncio.Future[None] | None = None
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the actor has ended."""
        return self._task is not None and self._task.done()

    async def step(self) -> None:
        """Run to the next call to the outside, or to the end. Raises what the actor raised."""
        self._stopped.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _: self._stopped.set())
        elif self._resume is not None and not self._resume.done():
            self._resume.set_result(None)
        try:
            async with asyncio.timeout(0.02 if self._blocks else 20):
                await self._stopped.wait()
        except TimeoutError:
            if not self._blocks:
                raise
        if self._task.done():
            self._task.result()

    async def kill(self) -> None:
        """Kill the actor where it is."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        _current.set(self)
        await self._work()

    async def pause(self) -> None:
        """Wait for the next turn."""
        self._resume = asyncio.get_running_loop().create_future()
        self._stopped.set()
        await self._resume


async def turn() -> None:
    """Call this before every call to the outside: other actors may run here."""
    actor = _current.get()
    if actor is not None:
        await actor.pause()


class TurnLock:
    """An `asyncio.Lock` for actors: while one waits for it, the others run."""

    def __init__(self) -> None:
        self._held = False

    async def __aenter__(self) -> Self:
        while self._held:
            await turn()
        self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._held = False
