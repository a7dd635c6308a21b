"""The crash switch: one for a process, made before its parts, so that each of them can be given it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class CrashSwitch:
    """Ends the process with exit code 1: an unexpected exception was raised where going on could lose signatures.

    Attributes:
        bug: The first exception that it was given; None as long as there was none.
    """

    def __init__(self) -> None:
        self.bug: BaseException | None = None
        self._stop: Callable[[], None] | None = None

    def connect(self, stop: Callable[[], None]) -> None:
        """Name what begins the stop of the process. It is called at once if there was a bug already."""
        self._stop = stop
        if self.bug is not None:
            stop()

    def fail(self, bug: BaseException) -> None:
        """Begin to stop. The first bug is logged; those that follow are usually its consequences."""
        if self.bug is None:
            self.bug = bug
            log.error("bug", exc_info=bug)
        if self._stop is not None:
            self._stop()
