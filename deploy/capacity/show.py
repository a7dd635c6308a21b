"""The result as text: tables on a terminal, and tables in `docs/capacity.md`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from deploy.capacity.answer import Capacity, Estimate, Line
from deploy.capacity.compute import capacity
from deploy.capacity.costs import COSTS, MeasuredCosts
from deploy.capacity.demand import Demand

NOT_MEASURED = "not measured"

PAGE_DEMANDS = (
    Demand(rate=2_000 / 60, signatures=6_100_000, viewers=100_000),
    Demand(rate=1_000, signatures=6_100_000, viewers=100_000),
    Demand(rate=10_000, signatures=6_100_000, viewers=100_000),
    Demand(rate=100_000, signatures=6_100_000, viewers=100_000),
)
"""The demands in `docs/capacity.md`: the largest known surge, and three steps beyond."""


def amount(value: float, unit: str) -> str:
    """Format a number with its unit.

    Args:
        value: The number.
        unit: Empty for a count, ``cores``, ``/s``, ``B`` and ``B/s`` in powers of 1,000, ``B memory`` in powers of 1,024.
    """
    if not unit:
        return f"{value:,.0f}"
    if unit == "B memory":
        return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
    if unit.startswith("B"):
        return _scaled(value, 1000, ("B", "kB", "MB", "GB", "TB", "PB")) + unit[1:]
    return f"{_digits(value)} {unit}" if unit == "cores" else f"{_digits(value)}{unit}"


def _scaled(value: float, step: int, names: Sequence[str]) -> str:
    for name in names[:-1]:
        if value < step:
            return f"{_digits(value)} {name}"
        value /= step
    return f"{_digits(value)} {names[-1]}"


def _digits(value: float) -> str:
    """Format two significant digits, or the integer part: costs are not known more precisely."""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"


def _shown(estimate: Estimate, unit: str) -> str:
    if estimate.value is None:
        return f"{NOT_MEASURED}: {', '.join(estimate.not_measured)}"
    return amount(estimate.value, unit)


def _up_to(answer: Capacity, estimate: Estimate | None) -> str:
    if estimate is None:
        return "no limit of its own"
    shown = _shown(estimate, "/s")
    beyond = estimate.value is not None and estimate.value < answer.demand.rate
    return f"{shown}: not enough" if beyond else shown


def verdict(answer: Capacity) -> str:
    """Return the first bottleneck in a sentence or two, or why it is not known yet."""
    first, first_core = answer.first, answer.first_core
    said = []
    if first is None or first.most is None or first.most.value is None:
        unknown = [each for each in answer.ceilings if each.most is not None and each.most.value is None]
        costs = dict.fromkeys(name for each in unknown if each.most for name in each.most.not_measured)
        said.append(f"What saturates first cannot be said: {', '.join(costs)} not measured.")
    else:
        enough = "which is enough here" if first.most.value >= answer.demand.rate else "which is NOT enough here"
        said.append(
            f"Saturates first: {first.part}, at {_digits(first.most.value)} submissions a second, {enough}."
            f" Beyond that: {first.beyond}."
        )
    if first_core is not None and first_core.one_core.value is not None:
        said.append(
            f"Needs a second core before all others: {first_core.part},"
            f" above {_digits(first_core.one_core.value)} submissions a second."
        )
    return " ".join(said)


def assumptions(demand: Demand) -> str:
    """Return the assumptions in a sentence."""
    return (
        f"Assumed: {demand.duplicates:.0%} of the submissions do not count, cores are busy up to"
        f" {demand.utilisation:.0%}, {demand.replication} copies of each Kafka partition, PostgreSQL has"
        f" {demand.postgres_cores} cores, snapshots every {demand.snapshot_interval_ms} ms,"
        f" {demand.petitions:,} petition{'s' if demand.petitions > 1 else ''} over {demand.days:g} days, and all"
        " submissions of the moment for one of them."
    )


def show(answer: Capacity, costs: MeasuredCosts, console: Console) -> None:
    """Print everything."""
    demand = answer.demand
    title = (
        f"{_digits(demand.rate)} submissions/s, {demand.signatures:,} signatures,"
        f" {demand.viewers:,} viewer{'' if demand.viewers == 1 else 's'}"
    )
    table = Table("part", "what", "needed", title=title, title_justify="left")
    group = ""
    for line in answer.lines:
        table.add_row(line.group if line.group != group else "", line.name, _shown(line.estimate, line.unit))
        group = line.group
    console.print(table)
    ceilings = Table("part", "one core carries", "at most", title="How far each goes", title_justify="left")
    ceilings.add_column("beyond that", overflow="fold")
    for each in answer.ceilings:
        ceilings.add_row(each.part, _shown(each.one_core, "/s"), _up_to(answer, each.most), each.beyond)
    console.print(ceilings)
    _say(console, verdict(answer))
    _say(console, assumptions(demand))
    for remark in answer.remarks:
        _say(console, remark)
    if answer.not_measured:
        _say(console, f"Not measured yet, so not computed from: {', '.join(answer.not_measured)}.", style="yellow")
    if measured := [cost for cost in costs.costs.values() if cost.date is not None]:
        dates = sorted({str(cost.date) for cost in measured})
        _say(console, f"Costs of {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; see docs/performance.md.")


def _say(console: Console, sentence: str, style: str | None = None) -> None:
    console.print(sentence, style=style, markup=False, highlight=False, soft_wrap=True)


# The page -------------------------------------------------------------------------------------------------------------


def page_tables(costs: MeasuredCosts) -> str:
    """Return the tables of `docs/capacity.md`: one column per demand, with the first bottleneck below."""
    answers = [capacity(demand, costs) for demand in PAGE_DEMANDS]
    heads = [f"{_digits(answer.demand.rate)}/s" for answer in answers]
    rows = [
        f"| {line.group} | {line.name} | {_cells(answers, index, line)} |"
        for index, line in enumerate(answers[0].lines)
    ]
    ceilings = [
        f"| {each.part} | {_shown(each.one_core, '/s')} | {_up_to_plain(each.most)} | {each.beyond} |"
        for each in answers[0].ceilings
    ]
    verdicts = [f"- **{head}**: {verdict(answer)}" for head, answer in zip(heads, answers, strict=True)]
    return "\n".join(
        [
            f"| part | what | {' | '.join(heads)} |",
            f"|---|---|{'---|' * len(heads)}",
            *rows,
            "",
            "| part | one core carries, submissions/s | at most | beyond that |",
            "|---|---|---|---|",
            *ceilings,
            "",
            *verdicts,
            "",
            assumptions(answers[0].demand),
            *(["", *answers[0].remarks] if answers[0].remarks else []),
        ]
    )


def _cells(answers: Sequence[Capacity], index: int, line: Line) -> str:
    return " | ".join(_plain(answer.lines[index].estimate, line.unit) for answer in answers)


def _plain(estimate: Estimate, unit: str) -> str:
    return NOT_MEASURED if estimate.value is None else amount(estimate.value, unit)


def _up_to_plain(estimate: Estimate | None) -> str:
    return "no limit of its own" if estimate is None else _plain(estimate, "/s")


def page_costs(costs: MeasuredCosts) -> str:
    """Return the table of costs of `docs/capacity.md`."""
    rows = []
    for name, cost in COSTS.items():
        measured = costs.costs[name]
        value = NOT_MEASURED if measured.value is None else f"{_four(measured.value)} {measured.unit}"
        when = "" if measured.date is None else f"{measured.date}, {measured.commit or 'commit unknown'}"
        rows.append(f"| `{name}` | {cost.what} | {value} | `{cost.source}` | {when} |")
    return "\n".join(["| cost | what | value | scenario | measured |", "|---|---|---|---|---|", *rows])


def _four(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
