"""The parts of a service: what each runs, and how it is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shared.runtime.background import background
from shared.runtime.crash import CrashSwitch


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The callbacks of one part, all optional. `shared.service.Service` says when each is called.

    Attributes:
        run: Runs concurrently with the other parts until cancelled. Any exception is a bug.
        stop: Begins to stop, without waiting: takes nothing new and gives up what is held.
        finish: Waits, within its own time limit, for what was begun. Every `run` is still running.
        close: Writes what is left and closes connections. No `run` is running any more.
    """

    run: Callable[[], Coroutine[Any, Any, None]] | None = None
    stop: Callable[[], None] | None = None
    finish: Callable[[], Awaitable[object]] | None = None
    close: Callable[[], Awaitable[object]] | None = None


@asynccontextmanager
async def running(parts: Sequence[Part], crash: CrashSwitch) -> AsyncIterator[None]:
    """Run the parts while the body runs. Afterwards the last part finishes first and closes first.

    If a part fails to finish or to close, the others still do; its exception is raised at the end.
    """
    async with AsyncExitStack() as stack:
        for part in parts:
            if part.close is not None:
                stack.push_async_callback(part.close)
        work = [part.run() for part in parts if part.run is not None]
        await stack.enter_async_context(background(crash.fail, *work))
        for part in parts:
            if part.finish is not None:
                stack.push_async_callback(part.finish)
        yield
