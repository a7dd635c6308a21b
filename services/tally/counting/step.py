"""Counting: what a batch of facts does to one petition's tally. No I/O; `apply.lua` carries it out.

The *fence* of a (petition, lane) is the position of the last fact that was counted. A fact at or below it is a
redelivery and changes nothing. Fences and count move together in one Lua call, and only if the stored fences are still
those that the step was computed from. So neither a replay nor a second process can count a fact twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from services.tally.counting.facts import ReadFact
from shared.contract.events import minute_of

UNKNOWN: Final = -1
"""An expected fence that no stored fence equals: the step is not applied, and the store returns its fences."""

Fences = Mapping[int, int]
"""Lane to the last position counted, 0 for none. A missing lane is not known: Redis may have lost what was counted in it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one Lua call does to one petition's tally."""

    lanes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Lane to (fence expected, fence afterwards)."""
    delta: int = 0
    peak: int = 0
    """The highest rise above the starting count while the facts are counted in order. With it, a threshold that is crossed
    and fallen below again within one batch is reached, however the facts were cut into batches."""
    changes: int = 0
    countries: dict[str, int] = field(default_factory=dict)
    minutes: dict[int, int] = field(default_factory=dict)
    first: bool = False
    """Whether nothing of the petition is known to have been counted before. Any other step is not applied where there is
    no tally: the tally was lost, and has to be rebuilt."""
    highest: int = 0
    """A count that the petition once had, according to the ledger: milestones up to it are reached."""

    def fences_after(self, before: Fences) -> dict[int, int]:
        """The fences after this step was applied."""
        return {**before, **{lane: after for lane, (_, after) in self.lanes.items()}}


def step(facts: Sequence[ReadFact], fences: Fences) -> Step:
    """Compute what `facts` add to a tally whose fences are `fences`.

    Args:
        facts: Facts of one petition, in the order of the topic. Within a lane positions rise, except at redeliveries.
        fences: The stored fences, as far as known. With an unknown lane the store applies nothing and returns its fences.
    """
    reached: dict[int, int] = {}
    countries: dict[str, int] = {}
    minutes: dict[int, int] = {}
    total = peak = changes = 0
    for fact in facts:
        lane = fact["lane"]
        fence = reached.get(lane)
        if fence is None:
            fence = reached[lane] = fences.get(lane, UNKNOWN)
        if fence == UNKNOWN or fact["position"] <= fence:
            continue
        reached[lane] = fact["position"]
        delta = fact["delta"]
        total += delta
        if total > peak:  # noqa: PLR1730  max() costs as much as all of the loop's arithmetic
            peak = total
        changes += 1
        countries[fact["country"]] = countries.get(fact["country"], 0) + delta
        minute = minute_of(fact["signed_at"])
        minutes[minute] = minutes.get(minute, 0) + delta
    lanes = {lane: (fences.get(lane, UNKNOWN), fence) for lane, fence in reached.items()}
    return Step(lanes, total, peak, changes, countries, minutes, first=not any(fences.values()))


def lost_state(expected: Fences, stored: Fences) -> bool:
    """Whether Redis has lost state: a stored fence is below where this process had moved it."""
    return any(stored.get(lane, 0) < position for lane, position in expected.items())


def by_petition(facts: Iterable[ReadFact]) -> dict[str, list[ReadFact]]:
    """Facts grouped by petition, each group in the given order."""
    grouped: dict[str, list[ReadFact]] = {}
    for fact in facts:
        grouped.setdefault(fact["petition_id"], []).append(fact)
    return grouped


def first_positions(facts: Iterable[ReadFact]) -> dict[int, int]:
    """Per lane, the lowest position among `facts`."""
    first: dict[int, int] = {}
    for fact in facts:
        first[fact["lane"]] = min(fact["position"], first.get(fact["lane"], fact["position"]))
    return first


def minute_text(minute: int) -> str:
    """A minute as readers see it: ``2026-11-22T10:42Z``."""
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%MZ")
