"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_DOUBLINGS: Final = 60
"""Beyond any `most`, and far from the largest number that a float holds."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double with every failure in a row.

    Not stamina's: a stop or a revocation could not end its waits early, it adds jitter where half of a wait is varied here,
    and it logs and counts retries under names of its own, for the whole process.

    Attributes:
        first: Seconds to wait after the first failure.
        most: Longest wait, in seconds.
    """

    first: float
    most: float

    def after(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row (1, 2, …)."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))


def jittered(seconds: float, at: float | None = None) -> float:
    """Between half of `seconds` and all of it, so that what failed together does not come back together.

    Args:
        seconds: The wait.
        at: Where between the two, from 0 to 1; None: at random.
    """
    return seconds * (0.5 + (random.random() if at is None else at) / 2)  # noqa: S311  jitter, not a secret
