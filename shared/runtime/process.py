"""What is set for the whole process, and how it ends when its stop hangs."""

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
"""A stop may take its drain budget for HTTP requests, for the batch in hand, and for what the producer has not sent; beyond
that and this slack it hangs."""


class StopLimit:
    """Ends the process by force if its stop hangs: a deployment that waits for it must not hang too.

    Nothing is lost by that which a crash would not lose: what is not finished was not committed.

    Args:
        drain_seconds: What each of the three stages of a stop may take.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._force: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The stop begins."""
        seconds = 3 * self._drain_seconds + _SLACK_SECONDS
        self._force = asyncio.get_running_loop().call_later(seconds, self._stop_hangs)

    def end(self) -> None:
        """All is closed."""
        if self._force is not None:
            self._force.cancel()

    @staticmethod
    def _stop_hangs() -> None:
        log.error("stop_hangs", tasks=[where(task) for task in asyncio.all_tasks() if not task.done()])
        logging.shutdown()
        os._exit(1)


def collect_seldom() -> None:
    """Let the garbage collector run less often: reference counts already free what requests and batches leave.

    With its defaults it walks over what is open, thousands of requests, after every 700 new objects: a tenth of the time of
    a busy ingest, and pauses of 30 ms. What modules and frameworks have made by now stays for good.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def end_by_exit_code() -> None:
    """Let a clean stop end with its own exit code.

    uvicorn raises the signal again once it has stopped; without this, SIGTERM would end the process with code 143.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
