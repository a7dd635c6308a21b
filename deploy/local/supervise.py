"""Restarts and reports what dies under `groundswell up`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NoReturn

from deploy.local.parts.process import PartFailed, Process
from deploy.local.stack import Stack
from shared.runtime.backoff import Backoff

_WATCH_SECONDS: Final = 0.2
_LOG_LINES: Final = 10


class Restarts:
    """The wait before a process is restarted: none at first, then a backoff.

    Args:
        first: seconds before the second consecutive restart.
        longest: maximum wait in seconds.
        steady: after a run of this many seconds, a death counts as the first again.
    """

    def __init__(self, *, first: float = 0.5, longest: float = 30.0, steady: float = 60.0) -> None:
        self._backoff, self._steady = Backoff(first, longest), steady
        self._started = 0.0
        self.deaths = 0

    def started(self, at: float) -> None:
        """Note a start, at `at` seconds of a monotonic clock."""
        self._started = at

    def died(self, at: float) -> float:
        """Note a death; return the seconds to wait."""
        if at - self._started >= self._steady:
            self.deaths = 0
        self.deaths += 1
        return 0.0 if self.deaths == 1 else self._backoff.after(self.deaths - 1)


class Supervisor:
    """Watches a running stack.

    Args:
        stack: the stack.
        report: called with lines for people.
    """

    def __init__(self, stack: Stack, report: Callable[[str], None]) -> None:
        self._stack = stack
        self._report = report
        now = time.monotonic()
        self._restarts = {process.name: Restarts() for process in stack.processes}
        for restarts in self._restarts.values():
            restarts.started(now)
        self._mending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> NoReturn:
        """Restart what ends by itself, until cancelled."""
        try:
            while True:
                for process in self._stack.processes:
                    self._look_at(process)
                await asyncio.sleep(_WATCH_SECONDS)
        finally:
            for task in self._mending.values():
                task.cancel()
            await asyncio.gather(*self._mending.values(), return_exceptions=True)

    def _look_at(self, process: Process) -> None:
        task = self._mending.get(process.name)
        if task is not None:
            if not task.done():
                return
            task.result()  # an exception is a bug, and ends `up` with its traceback
            del self._mending[process.name]
        if process.ended_by_itself:
            self._stack.note_ready(process, ready=False)
            self._mending[process.name] = asyncio.create_task(self._mend(process))

    async def _mend(self, process: Process) -> None:
        """Restart a process that has died, until it is ready."""
        how = process.describe_end(_LOG_LINES)
        while True:
            await self._pause(process, how)
            for need in self._stack.needs(process):
                while not self._is_up(need):  # noqa: ASYNC110  its own task tells nobody
                    await asyncio.sleep(_WATCH_SECONDS)
            began = time.monotonic()
            self._restarts[process.name].started(began)
            try:
                await process.launch()
                await self._wait_ready(process)
            except (PartFailed, OSError) as failure:
                how = str(failure)
                continue
            self._report(f"{process.name} is ready again ({time.monotonic() - began:.1f} s)")
            self._stack.note_ready(process, ready=True)
            return

    async def _wait_ready(self, process: Process) -> None:
        """Wait without limit until a process is ready: it may wait for something, or the machine may be busy.

        Raises:
            PartFailed: it has ended.
        """
        while True:
            try:
                await process.wait_ready()
            except PartFailed as late:
                if not process.running:
                    raise
                self._report(str(late))
            else:
                return

    async def _pause(self, process: Process, how: str) -> None:
        """Report a death and wait until the next restart."""
        restarts = self._restarts[process.name]
        seconds = restarts.died(time.monotonic())
        again = "It is started again."
        if seconds:
            again = f"That was the {_ordinal(restarts.deaths)} time in a row; it is started again in {seconds:g} s."
        self._report(f"{how}\n{again}")
        await asyncio.sleep(seconds)

    def _is_up(self, process: Process) -> bool:
        task = self._mending.get(process.name)
        return process.running and (task is None or task.done())


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"
