"""The tables of `docs/performance.md`, generated from the output of `groundswell bench --json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BENCH_DIR: Final = ROOT / "docs" / "bench"
RESULTS_FILE: Final = BENCH_DIR / "results.json"

NOTHING: Final = "Nothing has been measured yet."

PLOTS: Final[Mapping[str, str]] = {
    "peers.svg": "Each figure beside what it is compared with",
    "latency.svg": "Latency by rate",
    "cpu.svg": "CPU per signature by process, at steady rates",
    "stages.svg": "Where a service's CPU goes, stage by stage",
}
"""The plots of `tests.bench.results.plots`, in the order of the page."""

SHORT: Final[Mapping[str, str]] = {
    "accept.cpu_peer.hot.full": "CPU of ingest per signature",
    "drain.cpu.verify": "CPU of verify per signature",
    "tally.cpu.hot": "CPU of tally per signature",
    "accept.p99.hot": "time until a signer has the 202, at 2,000/s (p99)",
    "road.visible_p99.1000": "time from click to count, at 1,000/s (p99)",
    "road.sustained.peer-fastapi-postgres": "sustained rate through all services",
    "drain.rate": "rate of verify and tally on a backlog",
    "read.sse_all_updated.10000": "time until the last of 10,000 viewers has a new count",
}
"""The most important figures, with their descriptions. Figures that were not measured are omitted."""

Document = Mapping[str, Any]


def read_results(path: Path = RESULTS_FILE) -> Document | None:
    """Return the newest results; None before the first measurement."""
    if not path.exists():
        return None
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def machine(results: Document | None) -> str:
    """Return the table of the machine and the commit that were measured."""
    if results is None:
        return NOTHING
    rows = [f"| commit | `{results['commit']}` |"]
    for name, value in results["machine"].items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value
        rows.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(["| | |", "|---|---|", *rows])


def short(results: Document | None) -> str:
    """Return the table of the most important figures."""
    if results is None:
        return NOTHING
    figures = {figure["name"]: figure for figure in results["figures"]}
    rows = [
        f"| {words} | {number(figure['value'])} {figure['unit']} | {compared(figure)} |"
        for name, words in SHORT.items()
        if (figure := figures.get(name)) is not None
    ]
    return "\n".join(["| what | median | compared with |", "|---|---|---|", *rows])


def goals(results: Document | None) -> str:
    """Return the figures that have a goal, and whether they reach it."""
    if results is None:
        return NOTHING
    with_goal = [figure for figure in results["figures"] if figure["goal"]]
    reached = sum(figure["pass"] is True for figure in with_goal)
    missed = [figure["name"] for figure in with_goal if figure["pass"] is False]
    said = f"{reached} of {len(with_goal)} goals are reached."
    if missed:
        said += f" Missed: {', '.join(f'`{name}`' for name in missed)}."
    rows = [
        f"| `{figure['name']}` | {number(figure['value'])} {figure['unit']} | {spread(figure)} | {figure['goal']}"
        f" | {compared(figure)} | {_passed(figure['pass'])} | {figure.get('note') or ''} |"
        for figure in with_goal
    ]
    head = "| figure | median | spread | goal | compared with | | |"
    return "\n".join([said, "", head, "|---|---|---|---|---|---|---|", *rows])


def others(results: Document | None) -> str:
    """Return the figures without a goal, by scenario."""
    if results is None:
        return NOTHING
    rows = [
        f"| `{figure['name']}` | {number(figure['value'])} {figure['unit']} | {spread(figure)} | {compared(figure)}"
        f" | {figure.get('note') or ''} |"
        for figure in results["figures"]
        if not figure["goal"]
    ]
    return "\n".join(["| figure | median | spread | compared with | |", "|---|---|---|---|---|", *rows])


def plots(directory: Path = BENCH_DIR) -> str:
    """Return the plots that exist, as Markdown images."""
    drawn = _drawn(directory, PLOTS)
    return "\n\n".join(drawn) or NOTHING


def _drawn(directory: Path, names: Iterable[str]) -> list[str]:
    return [f"![{PLOTS[name]}](bench/{name})" for name in names if (directory / name).exists()]


def compared(figure: Document) -> str:
    """Return what a figure is compared with, and the ratio."""
    if figure["peer_value"] is None:
        return ""
    ratio = "" if figure["ratio"] is None else f", ratio {figure['ratio']:.2f}"
    return f"{figure['peer']}: {number(figure['peer_value'])} {figure['unit']}{ratio}"


def spread(figure: Document) -> str:
    """Return the minimum and the maximum of the rounds."""
    ends = figure.get("spread")
    return "" if ends is None else f"{number(ends[0])} – {number(ends[1])}"


def number(value: float) -> str:
    """Format a number with at least three significant digits, and no needless decimals."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _passed(passes: bool | None) -> str:
    return {True: "reached", False: "**missed**", None: "not compared"}[passes]
