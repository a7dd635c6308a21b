"""The parts of a service: what each does while the service runs, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shared.runtime.background import background
from shared.runtime.crash import CrashSwitch


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part, by what the service calls. `shared.service.Service` says when; each may be left out.

    Attributes:
        run: Runs beside the other parts until it is cancelled. What it raises is a bug.
        stop: Begins to end, without waiting: takes nothing new, gives up what is held.
        finish: Waits, within a time of its own, for what was begun. Every `run` still runs.
        close: Writes down what is left and closes connections. No `run` runs any more.
    """

    run: Callable[[], Coroutine[Any, Any, None]] | None = None
    stop: Callable[[], None] | None = None
    finish: Callable[[], Awaitable[object]] | None = None
    close: Callable[[], Awaitable[object]] | None = None


@asynccontextmanager
async def running(parts: Sequence[Part], crash: CrashSwitch) -> AsyncIterator[None]:
    """Run the parts beside the body. Afterwards the last part finishes first and closes first.

    A part that fails to finish or to close keeps no other from it; its exception is raised at the end.
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
