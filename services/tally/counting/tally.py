"""Plain types for tallies and the results of changing them. No I/O.

Redis holds tallies (`redis_store`) and the ledger proves them (`ledger`); both use these types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TallyState:
    """A whole tally, from the ledger or from Redis."""

    count: int
    revision: int
    fences: dict[int, int]
    """Lane to the last position counted."""
    countries: dict[str, int]
    """Country code to the number of verified signatures from there."""
    minutes: dict[int, int]
    """Minute since 1970 to the number of verified signatures submitted in it."""
    epoch: int = 0
    """See `shared.contract.events.TallyUpdated`."""
    peak: int = field(default=0, compare=False)
    """The highest count ever, in the order of the ledger rows' times. Only set in a state from the ledger."""

    @property
    def version(self) -> tuple[int, int]:
        """(epoch, revision). Of two states of a petition, the one with the higher version applies."""
        return self.epoch, self.revision


class DamagedTally(Exception):
    """The value that Redis stores for a petition is not a valid tally. The message names the field."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A milestone that is recorded and not yet announced."""

    petition_id: str
    threshold: int
    count: int
    revision: int
    reached_at: datetime


# --------------------------------------------------------------------------------------------- results of steps and swaps


@dataclass(frozen=True, slots=True)
class Applied:
    """A step was applied."""

    count: int
    revision: int
    unannounced: tuple[Reached, ...]


@dataclass(frozen=True, slots=True)
class NotApplied:
    """A step was not applied, because the stored fences or the tally are not as expected."""

    fences: dict[int, int]
    missing: bool = field(default=False, compare=False)
    """There is no tally of this petition."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """The stored value is not a valid tally: it has the wrong type, or a field is not a number. It has to be rebuilt."""

    what: str


@dataclass(frozen=True, slots=True)
class Swap:
    """The result of a swap; true if the rebuilt tally replaced the stored one."""

    done: bool
    above: dict[int, int] = field(default_factory=dict)
    """Stored fences that are above the rebuilt ones."""
    version: tuple[int, int] | None = None
    """The stored version, where it is higher than the rebuilt one."""

    def __bool__(self) -> bool:
        return self.done
