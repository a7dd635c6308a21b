"""A timeline of events, for finding the cause of a violation."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path


class Timeline:
    """Writes one JSON object a line and flushes it, so that the timeline of a killed harness is complete.

    Args:
        file: is appended to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.run: int | None = None
        self._began = time.monotonic()
        file.parent.mkdir(parents=True, exist_ok=True)

    def note(self, what: str, **facts: object) -> None:
        """Record that `what` happened now."""
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - self._began, 3),
            "run": self.run,
            "what": what,
            **facts,
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")
