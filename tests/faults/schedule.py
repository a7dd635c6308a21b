"""Which faults a run has, and when. Only the campaign's seed and the run's number decide it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.faults.fault import Fault

_FIRST_PART: Final = 0.08
_LAST_PART: Final = 0.85
"""Faults start between these parts of the surge, so that each happens under traffic."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault, and after how many accepted signatures it starts."""

    fault: Fault
    after: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that determines a run.

    Attributes:
        number: of the run in its campaign, from 1.
        seed: of the campaign.
        signatures: how many submissions the surge sends.
        rate: how many a second at most.
        faults: in the order of their start.
    """

    number: int
    seed: int
    signatures: int
    rate: float
    faults: tuple[Planned, ...]

    def random(self, purpose: str) -> Random:
        """A source of randomness for one purpose, the same at every repetition."""
        return Random(f"{self.seed}/{self.number}/{purpose}")


def plan(
    catalogue: Sequence[Fault],
    *,
    number: int,
    seed: int,
    signatures: int = 20_000,
    rate: float = 1_200.0,
    faults: int = 6,
) -> RunPlan:
    """Plan one run. Over a campaign all faults of the catalogue are equally frequent, to within one."""
    drawn = [_card(catalogue, seed, (number - 1) * faults + place) for place in range(faults)]
    random = Random(f"{seed}/{number}/times")
    parts = sorted(random.uniform(_FIRST_PART, _LAST_PART) for _ in drawn)
    planned = tuple(Planned(fault, int(part * signatures)) for fault, part in zip(drawn, parts, strict=True))
    return RunPlan(number=number, seed=seed, signatures=signatures, rate=rate, faults=planned)


def _card(catalogue: Sequence[Fault], seed: int, place: int) -> Fault:
    """The fault at `place` in an endless sequence of shuffled copies of the catalogue."""
    deck_number, index = divmod(place, len(catalogue))
    deck = sorted(catalogue, key=lambda fault: fault.kind)
    Random(f"{seed}/deck/{deck_number}").shuffle(deck)
    return deck[index]
