"""The live count of a petition, and what it has reached."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from shared.contract.events.base import Event, PetitionId


class TallyUpdated(Event):
    """The live count of a petition. A complete snapshot, not a difference: a reader that missed some needs only the next.

    Apply a snapshot only if its version, ``(epoch, revision)``, is above the one you have. An epoch more than a day after
    the record's own time was not written by tally.
    """

    TYPE: ClassVar[str] = "groundswell.tally.updated.v1"

    petition_id: PetitionId
    """The petition that is counted."""
    count: Annotated[int, Field(ge=0)]
    """How many signatures stand."""
    revision: Annotated[int, Field(ge=0)]
    """How many changes this count includes: it rises by one per change, also when the count falls."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """0, or the time (milliseconds since 1970) at which tally took back a snapshot with a higher revision that it could not
    prove: a count that tally had not made, or changes that the ledger has lost."""
    countries: dict[str, int]
    """Standing signatures by the signer's country, ISO 3166-1 alpha-2."""
    minutes: dict[str, int]
    """Standing signatures by the minute they were submitted (UTC, ``2026-11-22T10:42Z``): the hour that ends with the minute
    of the newest signature; minutes without any are left out."""
    earlier: int
    """Standing signatures submitted before those minutes: ``count = earlier + sum(minutes)``."""
    updated_at: AwareDatetime
    """When tally counted the newest of these changes."""

    @property
    def version(self) -> tuple[int, int]:
        """``(epoch, revision)``: of two snapshots of one petition, the one with the higher version is valid."""
        return self.epoch, self.revision


class MilestoneReached(Event):
    """A petition's count crossed a threshold, which happens at most once, ever."""

    TYPE: ClassVar[str] = "groundswell.milestone.reached.v1"

    petition_id: PetitionId
    """The petition whose count it was."""
    threshold: Annotated[int, Field(ge=1)]
    """The milestone: at least so many signatures stood."""
    count: Annotated[int, Field(ge=1)]
    """How many stood when the crossing was seen; at least the threshold."""
    revision: Annotated[int, Field(ge=1)]
    """The revision of that count."""
    reached_at: AwareDatetime
    """When tally counted the signature that crossed the threshold."""


def minute_of(moment: datetime) -> int:
    """Return the minute of `moment`, as whole minutes since 1970-01-01 UTC."""
    return math.floor(moment.timestamp() / 60)
