"""Background tasks: started together, cancelled together, with failures reported at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any

_CANCEL_AGAIN_SECONDS = 0.5


@asynccontextmanager
async def background(fail: Callable[[BaseException], None], *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` while the body runs, and cancel it at the end. An exception in it is a bug and goes to `fail` at once."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            fail(error)

    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        await _end(set(tasks))


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks until all of them have ended.

    Once is not enough: before Python 3.12 a cancellation is lost if it meets `asyncio.wait_for` at the moment of its result
    (python/cpython issue 86296), and drivers use that function. A loop that loses it would run for ever.
    """
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_SECONDS)


def where(task: asyncio.Task[Any]) -> str:
    """Return where a task waits: its name and the chain of awaiting lines, the innermost last. Without values."""
    waiting: Any = task.get_coro()
    places = []
    while waiting is not None:
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(waiting, f"{kind}_frame")), None)
        if kind is None:  # a step of an asynchronous generator, which does not name it, or the final future
            waiting = next((one for one in gc.get_referents(waiting) if isinstance(one, AsyncGeneratorType)), None)
            continue
        frame = getattr(waiting, f"{kind}_frame")
        if frame is not None:
            places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return f"{task.get_name()}: {' > '.join(places)}"
