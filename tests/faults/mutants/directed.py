"""The faults that are directed at each mutant, and by what they have to find it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.faults.catalogue import failpoints, redis
from tests.faults.fault import Fault
from tests.faults.mutants.schedules import SIGNERS_IN_TWO_LANES, ZOMBIE_IN_A_LANE


@dataclass(frozen=True, slots=True)
class Directed:
    """A schedule.

    Attributes:
        faults: (after which part of the surge, which fault).
        caught_by: how the violation begins that the missing rule leads to (a regular expression). A mutant that only
            something else finds, such as a crash of the patch itself, is not found.
    """

    faults: tuple[tuple[float, Fault], ...]
    caught_by: str


def directed() -> dict[str, Directed]:
    """The schedule of every mutant, by the mutant's name."""
    known = {fault.kind: fault for fault in (*failpoints.FAULTS, *redis.FAULTS, ZOMBIE_IN_A_LANE, SIGNERS_IN_TWO_LANES)}
    return {
        name: Directed(tuple((part, known[kind]) for part, kind in faults), caught_by)
        for name, (faults, caught_by) in _SCHEDULES.items()
    }


_SCHEDULES: Final[dict[str, tuple[tuple[tuple[float, str], ...], str]]] = {
    # Facts come twice: verify publishes a batch again, tally counts one again.
    "no-fence": (
        ((0.1, "tally-killed-after-count"), (0.4, "verify-killed-before-rejections")),
        r"counts of \S+ that differ from the .* verified signatures: .*Redis has",
    ),
    "committed-before-published": (
        ((0.2, "verify-killed-before-publish"),),
        r"ledger rows that signatures\.verified does not tell",
    ),
    "no-lane-key": (
        ((1.0, "verify-zombie-in-a-lane"),),
        r"on the topics: two facts at one \(lane, position\)",
    ),
    # Petitions that are signed show the loss by their fences; for the one that is not, nothing else does.
    "redis-unnoticed": (
        ((0.3, "redis-flushed"),),
        r"counts of \S+-cold that differ from the .* verified signatures: .*Redis has 0",
    ),
    "milestone-cleared-first": (
        ((0.05, "tally-killed-before-milestone-publish"),),
        r"milestones that were reached and not announced",
    ),
    "check-then-insert": (
        ((1.0, "verify-signers-in-two-lanes"),),
        r"signers of whose accepted signatures several count",
    ),
}
