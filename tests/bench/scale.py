"""The size of scenarios: full, or just enough to check that they work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

Number = TypeVar("Number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The size of a benchmark.

    Attributes:
        is_quick: small numbers. The figures then show only that everything runs.
        repeat: measured rounds. In each round every subject (ours, peers, floors) has its turn, so that other load on
            the machine affects all alike; a figure is the median of the rounds.
        warm_seconds: load that is not measured, before each measurement: code paths, caches and the broker's compiler.
        seconds: length of one measurement under constant load.
    """

    is_quick: bool
    repeat: int
    warm_seconds: float
    seconds: float

    @classmethod
    def full(cls, repeat: int | None = None) -> Scale:
        """The sizes for which the goals apply."""
        return cls(is_quick=False, repeat=repeat or 3, warm_seconds=5.0, seconds=10.0)

    @classmethod
    def quick(cls, repeat: int | None = None) -> Scale:
        """A minute per scenario."""
        return cls(is_quick=True, repeat=repeat or 1, warm_seconds=1.0, seconds=3.0)

    def pick(self, full: Number, *, quick: Number) -> Number:
        """A scenario's own number: `full`, or `quick` in a quick run."""
        return quick if self.is_quick else full
