"""Process-wide configuration, and the forced end of a process whose stop hangs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from typing import Final

import structlog

from shared.runtime.background import where

log = structlog.get_logger(__name__)

_SLACK_SECONDS: Final = 5.0
"""A stop may take the drain budget three times: for HTTP requests, for the current batch, and for the producer's unsent
records. If it takes more than that and this slack, it hangs."""


class StopLimit:
    """Ends the process by force if its stop hangs, so that a deployment that waits for it does not hang too.

    It is as safe as a crash: what is not finished was not committed.

    Args:
        drain_seconds: Time limit of each of the three stages of a stop.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._force: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start the timer: the stop begins."""
        seconds = 3 * self._drain_seconds + _SLACK_SECONDS
        self._force = asyncio.get_running_loop().call_later(seconds, self._stop_hangs)

    def end(self) -> None:
        """Cancel the timer: everything is closed."""
        if self._force is not None:
            self._force.cancel()

    @staticmethod
    def _stop_hangs() -> None:
        log.error("stop_hangs", tasks=[where(task) for task in asyncio.all_tasks() if not task.done()])
        logging.shutdown()
        os._exit(1)


def collect_seldom() -> None:
    """Let the garbage collector run less often: reference counting already frees what requests and batches leave behind.

    By default it traverses everything that is open, thousands of requests, after every 700 new objects: a tenth of the time
    of a busy ingest, and pauses of 30 ms. Objects that exist now, of modules and frameworks, are never collected.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def end_by_exit_code() -> None:
    """Make a clean stop end with the process's own exit code.

    uvicorn raises the signal again after it has stopped; without this, SIGTERM would end the process with code 143.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
