"""Decides when too many records have become dead letters: moving a whole topic to its DLQ would be a loss too."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Losses:
    """Tracks which of a topic's last records were lost.

    Args:
        topic: The topic's name, for the messages.
        ratio: Maximum fraction of the last `window` records that may be lost. 1 allows all.
        window: Number of records to which the ratio applies; it does not apply before that many were read.
        run: Maximum number of consecutive records that may be lost because of unforeseen errors. At low traffic it detects
            within seconds what the ratio would detect late: a constraint that refuses everything.
    """

    def __init__(self, topic: str, *, ratio: float, window: int, run: int) -> None:
        self._topic, self._ratio, self._window, self._most_in_a_row = topic, ratio, window, run
        self._lost: deque[bool] = deque(maxlen=window)
        self._in_a_row = 0

    def note_read(self, lost: Iterable[bool]) -> None:
        """Note for each record that was read, in order, whether it could not be decoded."""
        self._lost.extend(lost)

    def note_refused(self, count: int) -> None:
        """Note that `count` records that could be decoded are lost after all."""
        # Only the sum matters, so the newest ones are marked.
        kept = [place for place, lost in enumerate(self._lost) if not lost]
        for place in kept[max(0, len(kept) - count) :]:
            self._lost[place] = True

    def note_unexplained(self) -> None:
        """Note a record that is lost because of an unforeseen error."""
        self._in_a_row += 1

    def note_applied(self) -> None:
        """Note that records were applied."""
        self._in_a_row = 0

    def too_many(self) -> str | None:
        """Return a message for the operator if consumption must stop; None if it can go on."""
        lost = sum(self._lost)
        if len(self._lost) == self._window and lost > self._ratio * self._window:
            return self._stopped(
                f"{lost} of the last {self._window} records of {self._topic} could not be read or applied"
            )
        if self._in_a_row > self._most_in_a_row and self._ratio < 1:
            return self._stopped(f"{self._in_a_row} records of {self._topic} in a row could not be read or applied")
        return None

    @staticmethod
    def _stopped(why: str) -> str:
        return (
            f"stopped: {why}; find the producer that writes them, or what refuses them in the database, then restart"
            " (a DLQ_RATIO_LIMIT of 1 lets them through)"
        )
