"""The sender's progress: written by it, read by the live table and finally by the checks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

_MOST_SURPRISES = 20
"""Kept for the report; a system that is broken gives the same one a hundred thousand times."""


@dataclass(slots=True)
class Progress:
    """Counts of what was sent and answered."""

    submissions: int
    """How many there are in all."""
    answered: Counter[str] = field(default_factory=Counter)
    """Submissions with their final answer, by petition id."""
    accepted: int = 0
    """Submissions that ingest answered with 202 (or 303, to a browser)."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Submissions that ingest refused, by (petition id, reason)."""
    singles: int = 0
    """Of the answered ones, those that were a request of their own."""
    retries: int = 0
    """Submissions that were sent a second time on purpose, with the same Idempotency-Key."""
    put_off: int = 0
    """Requests that had to be sent again: 429, 503, or a connection that broke."""
    poison: int = 0
    """Poison records that the broker has acknowledged."""
    surprises: list[str] = field(default_factory=list)
    """Answers that no request should have had; any of them fails the demo."""
    surprised: int = 0
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    """When the last submission was answered (seconds of the monotonic clock)."""

    @property
    def done(self) -> float:
        """The part of the submissions that has been answered, 0 to 1."""
        return self.answered.total() / self.submissions

    @property
    def seconds(self) -> float:
        """How long the sending has taken, or took."""
        return (self.finished or time.monotonic()) - self.started

    def surprise(self, text: str) -> None:
        """Note an answer that no request should have had."""
        self.surprised += 1
        if len(self.surprises) < _MOST_SURPRISES:
            self.surprises.append(text)
