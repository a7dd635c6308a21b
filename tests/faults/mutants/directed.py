"""The faults for each mutant, and the violations that must reveal it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.faults.catalogue import failpoints, impossible, redis
from tests.faults.fault import Fault
from tests.faults.impossible.by_kafka import FORGED_COUNT
from tests.faults.impossible.victim import MALLORY
from tests.faults.mutants.schedules import SIGNERS_IN_TWO_LANES, ZOMBIE_IN_A_LANE

Expected = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Directed:
    """A schedule.

    Attributes:
        faults: (after which part of the surge, which fault).
        expected: whether a violation is a consequence of the missing rule. A mutant that shows only other violations,
            such as a crash of the patch itself, is not detected.
    """

    faults: tuple[tuple[float, Fault], ...]
    expected: Expected


def directed() -> dict[str, Directed]:
    """The schedule of every mutant, by the mutant's name."""
    own = (ZOMBIE_IN_A_LANE, SIGNERS_IN_TWO_LANES)
    known = {fault.kind: fault for fault in (*failpoints.FAULTS, *redis.FAULTS, *impossible.SINGLE, *own)}
    return {
        name: Directed(tuple((part, known[kind]) for part, kind in faults), expected)
        for name, (faults, expected) in _SCHEDULES.items()
    }


def _says(beginning: str) -> Expected:
    return lambda violation: violation.startswith(beginning)


def _not_healed(kind: str, what: str) -> Expected:
    return lambda violation: violation.startswith(f"{kind}: NotHealed") and what in violation


_COUNTS: Final = re.compile(r"counts of (\S+) that differ from the ([\d,]+) verified signatures: .*Redis has ([\d,]+)")


def _counted_twice(violation: str) -> bool:
    found = _COUNTS.match(violation)
    return found is not None and _number(found[3]) > _number(found[2])


def _forgotten_and_not_rebuilt(violation: str) -> bool:
    """A violation about the petition without further signatures. The others show the loss by their fences."""
    found = _COUNTS.match(violation)
    return found is not None and found[1].endswith("-cold") and _number(found[3]) == 0


def _number(text: str) -> int:
    return int(text.replace(",", ""))


_SCHEDULES: Final[dict[str, tuple[tuple[tuple[float, str], ...], Expected]]] = {
    # Facts come twice: a batch that tally has counted is redelivered, and verify publishes one again.
    "no-fence": (
        ((0.1, "tally-killed-after-count"), (0.4, "verify-killed-before-rejections")),
        _counted_twice,
    ),
    # tally may heal itself from the ledger when it finds a gap before a petition's first fact; other readers cannot.
    "committed-before-published": (
        ((0.2, "verify-killed-before-publish"),),
        _says("ledger rows that signatures.verified does not tell"),
    ),
    "no-lane-key": (
        ((1.0, "verify-zombie-in-a-lane"),),
        _says("on the topics: two facts at one (lane, position)"),
    ),
    "redis-unnoticed": (
        ((0.3, "redis-flushed"),),
        _forgotten_and_not_rebuilt,
    ),
    "milestone-cleared-first": (
        ((0.05, "tally-killed-before-milestone-publish"),),
        _says("milestones that were reached and not announced"),
    ),
    "check-then-insert": (
        ((1.0, "verify-signers-in-two-lanes"),),
        _says("signers of whose accepted signatures several count"),
    ),
    # The signature that the table refuses is in a batch with others.
    "not-split": (
        ((0.3, "impossible-postgres-signer-refused-by-the-table"),),
        _says("impossible-postgres-signer-refused-by-the-table: NotHealed"),
    ),
    "not-taken-back": (
        ((0.3, "impossible-kafka-tallies-updated-forged"),),
        _not_healed("impossible-kafka-tallies-updated-forged", f"the API shows {FORGED_COUNT:,}"),
    ),
    "key-unchecked": (
        ((0.3, "impossible-kafka-petitions-changed-foreign"),),
        _not_healed("impossible-kafka-petitions-changed-foreign", f"to {MALLORY}"),
    ),
}
