"""Exponential backoff with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

_DOUBLINGS: Final = 60
"""Enough to exceed any `most`, and far below the largest float."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double with every consecutive failure.

    stamina is not used: a stop or a revocation could not end its waits early, it adds jitter where here half of a wait is
    random, and it logs and counts retries under its own names, for the whole process.

    Attributes:
        first: Seconds to wait after the first failure.
        most: Maximum wait, in seconds.
    """

    first: float
    most: float

    def after(self, failures: int) -> float:
        """Return the seconds to wait after `failures` consecutive failures (1, 2, …)."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))


def jittered(seconds: float, at: float | None = None) -> float:
    """Return a wait between half of `seconds` and `seconds`, so that what failed together does not retry together.

    Args:
        seconds: The maximum wait.
        at: The place between the two, from 0 to 1; None: random.
    """
    return seconds * (0.5 + (random.random() if at is None else at) / 2)  # noqa: S311  jitter, not a secret
