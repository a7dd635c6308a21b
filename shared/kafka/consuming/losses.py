"""When too many records go to the dead letters: draining a topic into them is a loss, too."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Losses:
    """What became of the last records of a topic.

    Args:
        topic: Its name, for the messages.
        ratio: Most of the last `window` records that may be lost, as a part of them. 1 allows all.
        window: How many records the ratio is about; before there were so many it does not apply.
        run: Most records in a row that may be lost without anybody knowing why, with none between them that went well.
            It finds within seconds what the ratio would find late where little arrives: a constraint that refuses all.
    """

    def __init__(self, topic: str, *, ratio: float, window: int, run: int) -> None:
        self._topic, self._ratio, self._window, self._most_in_a_row = topic, ratio, window, run
        self._lost: deque[bool] = deque(maxlen=window)
        self._in_a_row = 0

    def note_read(self, lost: Iterable[bool]) -> None:
        """Records were read: of each, in order, whether that failed."""
        self._lost.extend(lost)

    def note_refused(self, count: int) -> None:
        """Records that had been read are lost after all."""
        # Which of them it was does not change the sum, so these are the newest ones.
        kept = [place for place, lost in enumerate(self._lost) if not lost]
        for place in kept[max(0, len(kept) - count) :]:
            self._lost[place] = True

    def note_unexplained(self) -> None:
        """A record is lost by an error that nobody foresaw."""
        self._in_a_row += 1

    def note_applied(self) -> None:
        """Records were applied."""
        self._in_a_row = 0

    def too_many(self) -> str | None:
        """What to tell the operator when consumption has to stop; None when it can go on."""
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
