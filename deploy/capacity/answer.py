"""The result of a computation: numbers, the ceiling of each part, and costs that were not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from deploy.capacity.costs import COSTS
from deploy.capacity.demand import Demand


@dataclass(frozen=True, slots=True)
class Estimate:
    """A computed number, or the names of the costs that it needs and that were not measured."""

    value: float | None
    not_measured: tuple[str, ...] = ()


def combine(formula: Callable[..., float], *of: Estimate) -> Estimate:
    """Apply `formula` to the values of `of`, if all are known."""
    missing = tuple(dict.fromkeys(name for estimate in of for name in estimate.not_measured))
    return Estimate(None, missing) if missing else Estimate(formula(*(estimate.value for estimate in of)))


@dataclass(frozen=True, slots=True)
class Line:
    """One computed number with its description. Units are those of `deploy.capacity.show.amount`."""

    group: str
    name: str
    estimate: Estimate
    unit: str


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The capacity of one part.

    Attributes:
        one_core: submissions per second that one core of it processes at the assumed utilisation.
        most: maximum submissions per second; None if more instances always process more.
        beyond: how to exceed the maximum.
    """

    part: str
    one_core: Estimate
    most: Estimate | None
    beyond: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """The whole result.

    Attributes:
        remarks: notes that are needed to interpret the numbers.
    """

    demand: Demand
    lines: tuple[Line, ...]
    ceilings: tuple[Ceiling, ...]
    remarks: tuple[str, ...]

    @property
    def not_measured(self) -> list[str]:
        """Return the needed costs that were not measured."""
        estimates = [line.estimate for line in self.lines]
        estimates += [estimate for each in self.ceilings for estimate in (each.one_core, each.most) if estimate]
        names = {name for estimate in estimates for name in estimate.not_measured}
        return [name for name in COSTS if name in names]

    @property
    def first(self) -> Ceiling | None:
        """Return the lowest ceiling of the parts that cannot be scaled out; None while one of them was not measured."""
        return _lowest([(each, each.most) for each in self.ceilings if each.most is not None])

    @property
    def first_core(self) -> Ceiling | None:
        """Return the part that fills its first core before all others; None while one was not measured."""
        return _lowest([(each, each.one_core) for each in self.ceilings])

    def of(self, group: str, name: str) -> Estimate:
        """Return one of the lines.

        Raises:
            KeyError: there is no such line.
        """
        for line in self.lines:
            if (line.group, line.name) == (group, name):
                return line.estimate
        raise KeyError(f"{group}: {name}")

    def as_json(self) -> dict[str, Any]:
        """Return the whole result; numbers that could not be computed are null."""
        first, first_core = self.first, self.first_core
        return {
            "demand": {field.name: getattr(self.demand, field.name) for field in fields(self.demand)},
            "lines": [
                {"group": line.group, "name": line.name, "value": line.estimate.value, "unit": line.unit}
                | {"not_measured": list(line.estimate.not_measured)}
                for line in self.lines
            ],
            "ceilings": [
                {"part": each.part, "one_core": each.one_core.value, "most": each.most.value if each.most else None}
                | {"bounded": each.most is not None, "beyond": each.beyond}
                for each in self.ceilings
            ],
            "saturates_first": first.part if first else None,
            "fills_its_first_core_first": first_core.part if first_core else None,
            "remarks": list(self.remarks),
            "not_measured": self.not_measured,
        }


def _lowest(candidates: list[tuple[Ceiling, Estimate]]) -> Ceiling | None:
    known = [(estimate.value, ceiling) for ceiling, estimate in candidates if estimate.value is not None]
    return min(known, key=lambda pair: pair[0])[1] if len(known) == len(candidates) else None
