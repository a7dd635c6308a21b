"""``python -m tests.bench.results.plots``: the plots of docs/performance.md, as SVG, from the benchmark's results.

A plot whose figures are not in the results is not drawn, and its older version stays.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from deploy.performance import BENCH_DIR, RESULTS_FILE, number

Figure = Mapping[str, Any]

OURS: Final = "#1a6e8e"
THEIRS: Final = "#b9bec4"
MISSED: Final = "#b3402e"
STACK: Final = (
    *("#0f4c63", "#1a6e8e", "#4a9bb5", "#8cc3d1", "#d9a441", "#8aa57e", "#c8d9c0"),
    *("#7d8790", "#b9bec4", "#a8683a", "#e3c79a", "#5b5f97", "#a7a9d0", "#c98b9b"),
)
_ROW_INCHES: Final = 0.42

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "svg.fonttype": "none",  # text stays text: small files, searchable
    "svg.hashsalt": "groundswell",  # the same results give the same file
    "figure.facecolor": "white",  # readable on a dark page too
}


# Bars against peers ---------------------------------------------------------------------------------------------------


def peers(figures: Sequence[Figure]) -> Picture | None:
    """Each compared figure: ours above, the other below, scaled so that the longer bar has the plot's width."""
    compared = [figure for figure in figures if figure["peer_value"]]
    if not compared:
        return None
    picture, axes = _canvas(
        2 * len(compared),
        "Each figure beside what it is compared with; every pair has its own scale (red: misses its goal)",
    )
    names = []
    for row, figure in enumerate(compared):
        longest = max(figure["value"], figure["peer_value"])
        colour = MISSED if figure["pass"] is False else OURS
        for offset, value, who, fill in (
            (-0.2, figure["value"], "Groundswell", colour),
            (0.2, figure["peer_value"], figure["peer"], THEIRS),
        ):
            axes.barh(row + offset, value / longest, height=0.36, color=fill)
            end = max(value, figure["spread"][1] if fill == colour and figure.get("spread") else 0) / longest
            axes.text(end + 0.01, row + offset, f"{number(value)} {figure['unit']}  {who}", va="center")
        _spread(axes, figure, row - 0.2, longest)
        names.append(f"{figure['name']}\n{figure['goal']}" if figure["goal"] else figure["name"])
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(left=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    return picture


def _spread(axes: Axes, figure: Figure, height: float, longest: float) -> None:
    """A thin line from the lowest to the highest of the rounds."""
    if figure.get("spread"):
        least, most = (end / longest for end in figure["spread"])
        axes.plot([least, most], [height, height], color="black", linewidth=0.8)


# Latency by rate ------------------------------------------------------------------------------------------------------

_LATENCIES: Final = {
    "road.visible_p99": "submitted to visible, p99",
    "road.visible_p50": "submitted to visible, median",
    "road.accept_p99": "HTTP to 202, p99",
}


def latency(figures: Sequence[Figure]) -> Picture | None:
    """Milliseconds by signatures a second, with the spread of the rounds and the goals."""
    picture, axes = plt.subplots(figsize=(7, 4))
    drawn = False
    for colour, (name, label) in zip((OURS, "#8cc3d1", "#d9a441"), _LATENCIES.items(), strict=True):
        points = _numbered(figures, name)
        if not points:
            continue
        drawn = True
        rates = list(points)
        axes.plot(rates, [point["value"] for point in points.values()], "o-", color=colour, label=label)
        spreads = [point.get("spread") or [point["value"]] * 2 for point in points.values()]
        axes.fill_between(rates, [low for low, _ in spreads], [high for _, high in spreads], color=colour, alpha=0.15)
        for rate, point in points.items():
            _bound(axes, rate, point["goal"])
        axes.set_xticks(rates, [f"{rate:,}" for rate in rates])
    if not drawn:
        plt.close(picture)
        return None
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("signatures a second, one hot petition")
    axes.set_ylabel("milliseconds")
    axes.set_title("Latency by rate, everything on one machine")
    axes.grid(axis="y", which="both", linewidth=0.3)
    axes.legend(frameon=False)
    return picture


def _bound(axes: Axes, rate: int, goal: str) -> None:
    if wanted := re.search(r"≤ ([\d,.]+) ms", goal):
        axes.plot([rate], [float(wanted[1].replace(",", ""))], marker="_", markersize=24, color=MISSED)
        axes.annotate("goal", (rate, float(wanted[1].replace(",", ""))), textcoords="offset points", xytext=(14, -3))


def _numbered(figures: Sequence[Figure], name: str) -> dict[int, Figure]:
    """Figures called ``name.<number>``, by that number."""
    found = {
        int(match[1]): figure
        for figure in figures
        if (match := re.fullmatch(re.escape(name) + r"\.(\d+)", figure["name"]))
    }
    return dict(sorted(found.items()))


# Where the time goes --------------------------------------------------------------------------------------------------


def cpu(figures: Sequence[Figure]) -> Picture | None:
    """CPU of a signature from HTTP to count, at a steady rate and in a backlog, by process."""
    bars = {
        "whole road,\n1,000/s": _parts(figures, "road.cpu."),
        "backlog": _parts(figures, "drain.cpu."),
    }
    return _stacked(bars, "CPU per signature, by process", "CPU microseconds per signature")


def stages(figures: Sequence[Figure]) -> Picture | None:
    """CPU of a signature in each service, stage by stage."""
    bars = {service: _parts(figures, f"stages.{service}.") for service in ("ingest", "verify", "tally")}
    return _stacked(bars, "Where a service's CPU goes, stage by stage", "CPU microseconds per signature")


def _parts(figures: Sequence[Figure], prefix: str) -> dict[str, float]:
    """Values by the name's last part; names with more parts are comparisons and are left out."""
    return {
        figure["name"][len(prefix) :]: figure["value"]
        for figure in figures
        if figure["name"].startswith(prefix) and "." not in figure["name"][len(prefix) :] and figure["value"] > 0
    }


def _stacked(bars: Mapping[str, Mapping[str, float]], title: str, unit: str) -> Picture | None:
    """One bar for each entry, its parts side by side, largest first, each named below its bar."""
    bars = {name: parts for name, parts in bars.items() if parts}
    if not bars:
        return None
    longest = max(sum(parts.values()) for parts in bars.values())
    picture, rows = plt.subplots(len(bars), 1, figsize=(9, 1.7 * len(bars) + 0.8), sharex=True, squeeze=False)
    # A part has the same colour in every bar.
    names = dict.fromkeys(part for parts in bars.values() for part in sorted(parts, key=lambda part: -parts[part]))
    colours = dict(zip(names, itertools.cycle(STACK), strict=False))
    for axes, (name, parts) in zip(rows[:, 0], bars.items(), strict=True):
        left = 0.0
        for part, value in sorted(parts.items(), key=lambda part: -part[1]):
            axes.barh(0, value, left=left, height=0.5, color=colours[part], label=f"{part} {number(value)}")
            left += value
        axes.text(left + longest * 0.01, 0, f"{number(left)} µs", va="center", fontweight="bold")
        axes.set_yticks([0], [name])
        axes.set_ylim(-1.0, 0.4)
        axes.set_xlim(0, longest * 1.12)
        axes.legend(loc="lower left", ncols=4, frameon=False, fontsize=7.5, handlelength=0.9, columnspacing=1.2)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    rows[0, 0].set_title(title)
    rows[-1, 0].set_xlabel(unit)
    return picture


def _canvas(rows: int, title: str) -> tuple[Picture, Axes]:
    picture, axes = plt.subplots(figsize=(10, max(2.0, rows * _ROW_INCHES + 0.8)))
    axes.set_title(title)
    return picture, axes


# Files ----------------------------------------------------------------------------------------------------------------

PICTURES: Final[Mapping[str, Callable[[Sequence[Figure]], Picture | None]]] = {
    "peers.svg": peers,
    "latency.svg": latency,
    "cpu.svg": cpu,
    "stages.svg": stages,
}


def draw(results: Mapping[str, Any], directory: Path) -> list[str]:
    """Draw all plots for which the results have figures; return their names."""
    drawn = []
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        for name, make in PICTURES.items():
            picture = make(results["figures"])
            if picture is None:
                continue
            # Without a date, the same results give the same file.
            picture.savefig(directory / name, format="svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(picture)
            drawn.append(name)
    return drawn


def main() -> int:
    """Draw into docs/bench."""
    parser = ArgumentParser(
        prog="python -m tests.bench.results.plots", description="Pictures of the benchmark's results."
    )
    parser.add_argument("--results", type=Path, default=RESULTS_FILE, help="what groundswell bench --json has written")
    parser.add_argument("--directory", type=Path, default=BENCH_DIR, help="where the pictures go")
    arguments = parser.parse_args()
    try:
        results = json.loads(arguments.results.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(
            f"{arguments.results}: {error.strerror}; make it with: make bench ARGS='--json {arguments.results}'"
        )
    for name in draw(results, arguments.directory):
        print(arguments.directory / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
