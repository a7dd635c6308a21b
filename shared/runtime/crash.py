"""The crash switch: one per process, created before its parts, which all receive it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class CrashSwitch:
    """Ends the process with exit code 1 after an unexpected exception, where continuing could lose signatures.

    Attributes:
        bug: The first exception; None as long as there was none.
    """

    def __init__(self) -> None:
        self.bug: BaseException | None = None
        self._stop: Callable[[], None] | None = None

    def connect(self, stop: Callable[[], None]) -> None:
        """Set the function that begins to stop the process. It is called at once if there was a bug already."""
        self._stop = stop
        if self.bug is not None:
            stop()

    def fail(self, bug: BaseException) -> None:
        """Begin to stop. Only the first bug is logged; later ones are usually its consequences."""
        if self.bug is None:
            self.bug = bug
            log.error("bug", exc_info=bug)
        if self._stop is not None:
            self._stop()
