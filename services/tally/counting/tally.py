"""What a tally is, and what became of a change of it: plain types, beside the rules of counting (`step`).

Redis holds tallies (`redis_store`), the ledger proves them (`ledger`); both speak in these types. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TallyState:
    """A whole tally: what the ledger says it should be, or what Redis has."""

    count: int
    revision: int
    fences: dict[int, int]
    """Lane to the last position counted."""
    countries: dict[str, int]
    """Country code to the signatures of that country that stand."""
    minutes: dict[int, int]
    """Minute since 1970 to the signatures submitted in it that stand."""
    epoch: int = 0
    """See `shared.contract.events.TallyUpdated`."""
    peak: int = field(default=0, compare=False)
    """The highest count that the ledger ever had, by the times of its rows. Of a state that was read from the ledger."""

    @property
    def version(self) -> tuple[int, int]:
        """Of two states of one petition, the one with the higher version holds."""
        return self.epoch, self.revision


class DamagedTally(Exception):
    """What Redis has of a petition is no tally. The message names the field."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A milestone that is recorded and not yet announced."""

    petition_id: str
    threshold: int
    count: int
    revision: int
    reached_at: datetime


# ---------------------------------------------------------------------------------------- what became of a step or a swap


@dataclass(frozen=True, slots=True)
class Applied:
    """A step was applied."""

    count: int
    revision: int
    unannounced: tuple[Reached, ...]


@dataclass(frozen=True, slots=True)
class NotApplied:
    """A step was not applied: the fences are elsewhere. Only the lanes of the step are given."""

    fences: dict[int, int]
    missing: bool = field(default=False, compare=False)
    """There is no tally of this petition."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """What Redis has of a petition is no tally: a value of the wrong type, or no number. It has to be rebuilt."""

    what: str


@dataclass(frozen=True, slots=True)
class Swap:
    """What became of a rebuilt state; true if it was put in place."""

    done: bool
    above: dict[int, int] = field(default_factory=dict)
    """Stored fences that are above the rebuilt ones."""
    version: tuple[int, int] | None = None
    """The stored version, where it is higher than the rebuilt one."""

    def __bool__(self) -> bool:
        return self.done
