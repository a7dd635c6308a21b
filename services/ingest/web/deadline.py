"""A time limit for thousands of requests at once."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final

ANSWER_SECONDS: Final = 10.0
"""The longest wait for an answer: neither a person with a form nor a proxy waits longer."""

_LOOK_SECONDS: Final = 0.25


class Deadline:
    """``with deadline:`` limits the time of one task, as `asyncio.timeout` does, accurate to a quarter of a second.

    `asyncio.timeout` sets and cancels a timer for every use: 5 µs, a twentieth of the cost of a signature, for a limit that
    is almost never reached. Here all tasks share one timer, which looks at the oldest first. A task may be inside only once.

    Args:
        seconds: The longest time that a task may be inside.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entered: dict[asyncio.Task[object], float] = {}  # in the order of entry
        self._next_look: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._entered[task] = time.monotonic()
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise TimeoutError instead of the CancelledError that ended a task at the limit."""
        task = asyncio.current_task()
        assert task is not None
        if self._entered.pop(task, None) is None and kind is asyncio.CancelledError and task.uncancel() == 0:
            raise TimeoutError from error

    def _look(self) -> None:
        latest = time.monotonic() - self._seconds
        late = []
        for task, entered in self._entered.items():
            if entered > latest:
                break
            late.append(task)
        for task in late:
            del self._entered[task]
            task.cancel()
        self._next_look = None
        if self._entered:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
