"""The output of a benchmark: figures with their goals, the JSON document, and the table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Compared = Literal["value", "times peer", "times less", "times more"]


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a figure; made by the functions below.

    Attributes:
        of: what is compared with `bound`: the value itself, or a ratio to the peer's value. ``times peer`` is
            value / peer, ``times less`` peer / value, ``times more`` value / peer.
        at_most: whether `bound` is an upper bound; otherwise it is a lower one.
    """

    text: str
    bound: float
    of: Compared
    at_most: bool

    def holds(self, value: float, ratio: float | None) -> bool | None:
        """Whether the goal is reached; None when it is about a peer that was not measured."""
        compared = value if self.of == "value" else ratio
        if compared is None:
            return None
        return compared <= self.bound if self.at_most else compared >= self.bound


def at_most(bound: float, unit: str) -> Goal:
    """The value is `bound` or less."""
    return Goal(f"≤ {bound:,g} {unit}", bound, "value", True)


def at_least(bound: float, unit: str) -> Goal:
    """The value is `bound` or more."""
    return Goal(f"≥ {bound:,g} {unit}", bound, "value", False)


def at_most_times(bound: float, peer: str) -> Goal:
    """The value is at most `bound` times the peer's (or the floor's)."""
    return Goal(f"≤ {bound:g} × {peer}", bound, "times peer", True)


def times_less(bound: float, peer: str) -> Goal:
    """The value is at least `bound` times less than the peer's."""
    return Goal(f"≥ {bound:g} × less than {peer}", bound, "times less", False)


def times_more(bound: float, peer: str) -> Goal:
    """The value is at least `bound` times the peer's."""
    return Goal(f"≥ {bound:g} × {peer}", bound, "times more", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number.

    Attributes:
        name: ``<scenario>.<what>[.<condition>]``, e.g. ``accept.cpu.hot``; stable, for plots and later comparisons.
        goal: in words; empty for a number without a goal.
        passes: whether the goal is reached; None without a goal, or when its peer was not measured.
        peer, peer_value: the compared subject, in the same unit and the same rounds.
        ratio: see `Goal.of`; without a goal value / peer_value.
        spread: lowest and highest value of the rounds.
        note: what a reader must know about this number.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    passes: bool | None = None
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The figure as in the document, where `passes` is named ``pass``, a keyword in Python."""
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "goal": self.goal,
            "peer": self.peer,
            "peer_value": _rounded(self.peer_value),
            "ratio": _rounded(self.ratio),
            "pass": self.passes,
            "spread": None if self.spread is None else [_rounded(end) for end in self.spread],
            "note": self.note,
        }


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    goal: Goal | None = None,
    *,
    peer: str | None = None,
    peer_values: Sequence[float] = (),
    note: str = "",
) -> Figure:
    """The figure of several rounds: medians, spread, and whether the goal is reached.

    Args:
        values: of each round; at least one.
        peer: the compared subject.
        peer_values: the peer's values in the same rounds; empty when it was not measured.
    """
    value = median(values)
    peer_value = median(peer_values) if peer_values else None
    ratio = None
    if peer_value is not None:
        above, below = (peer_value, value) if goal is not None and goal.of == "times less" else (value, peer_value)
        ratio = above / below if below else None
    return Figure(
        name=name,
        value=value,
        unit=unit,
        goal=goal.text if goal else "",
        passes=goal.holds(value, ratio) if goal else None,
        peer=peer,
        peer_value=peer_value,
        ratio=ratio,
        spread=(min(values), max(values)) if len(values) > 1 else None,
        note=note,
    )


@dataclass(slots=True)
class Result:
    """A complete benchmark: machine, versions and figures."""

    machine: Mapping[str, Any]
    commit: str
    figures: list[Figure] = field(default_factory=list)

    def as_json(self) -> str:
        """The document of ``--json FILE``."""
        document = {
            "machine": dict(self.machine),
            "commit": self.commit,
            "figures": [each.as_json() for each in self.figures],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @property
    def missed(self) -> list[Figure]:
        """The figures whose goal was missed."""
        return [each for each in self.figures if each.passes is False]


def show(result: Result, console: Console) -> None:
    """Print the figures as a table, and the missed goals below it."""
    table = Table("figure", "value", "spread", "unit", "goal", "compared with", "ratio", "", title="Benchmark")
    for each in result.figures:
        table.add_row(
            each.name,
            _for_people(each.value),
            "" if each.spread is None else f"{_for_people(each.spread[0])} – {_for_people(each.spread[1])}",
            each.unit,
            each.goal,
            "" if each.peer_value is None else f"{each.peer}: {_for_people(each.peer_value)}",
            "" if each.ratio is None else f"{each.ratio:.2f}",
            {True: "[green]pass[/]", False: "[red]MISSED[/]", None: ""}[each.passes],
        )
    console.print(table)
    with_goal = [each for each in result.figures if each.goal]
    unknown = sum(each.passes is None for each in with_goal)
    console.print(
        f"{len(with_goal)} goals: {sum(each.passes is True for each in with_goal)} reached, {len(result.missed)} missed"
        + (f", {unknown} without their peer" if unknown else ""),
        highlight=False,
    )


def _for_people(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    magnitude = abs(value)
    if magnitude >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"


def _rounded(value: float | None) -> float | None:
    """Round to four decimals, more than any figure is exact to. JSON has no infinity (never reached)."""
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
