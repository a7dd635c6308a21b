"""The tables of docs/performance.md have the figures of the benchmark's file, and are empty without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import performance


def figure(name: str, value: float, **rest: Any) -> dict[str, Any]:
    nothing = {"goal": "", "peer": None, "peer_value": None, "ratio": None, "pass": None, "spread": None, "note": ""}
    return {"name": name, "value": value, "unit": "µs", **nothing, **rest}


RESULTS: dict[str, Any] = {
    "machine": {"processor": "of a test", "memory_gb": 8.0, "packages": {"aiokafka": "1", "uvloop": "2"}},
    "commit": "1a2b3c4",
    "figures": [
        figure("drain.verify_cpu", 52.34, goal="≤ 55 µs", spread=[51.0, 60.0], **{"pass": True}),
        figure(
            "accept.cpu", 130.0, goal="≤ 1.3 × floor", peer="floor", peer_value=91.0, ratio=1.4286, **{"pass": False}
        ),
        figure("accept.rate", 7000.0, note="one process"),
    ],
}


def test_goals_are_counted_and_the_missed_ones_named() -> None:
    table = performance.goals(RESULTS)
    assert "1 of 2 goals are reached. Missed: `accept.cpu`." in table
    assert "| `drain.verify_cpu` | 52.3 µs | 51 – 60 | ≤ 55 µs |  | reached |  |" in table
    assert "| `accept.cpu` | 130 µs |  | ≤ 1.3 × floor | floor: 91 µs, ratio 1.43 | **missed** |  |" in table
    assert "accept.rate" not in table


def test_the_other_figures_and_the_machine() -> None:
    assert performance.others(RESULTS).splitlines()[2:] == ["| `accept.rate` | 7,000 µs |  |  | one process |"]
    machine = performance.machine(RESULTS)
    assert "| commit | `1a2b3c4` |" in machine
    assert "| memory gb | 8.0 |" in machine
    assert "| packages | aiokafka 1, uvloop 2 |" in machine


def test_the_figures_that_say_the_most_are_in_words_and_one_that_was_not_measured_is_left_out() -> None:
    figures = [figure("drain.cpu.verify", 46.2, peer="floor", peer_value=23.1, ratio=2.0)]
    assert performance.short({**RESULTS, "figures": figures}).splitlines()[2:] == [
        "| CPU of verify per signature | 46.2 µs | floor: 23.1 µs, ratio 2.00 |"
    ]


def test_before_anything_is_measured_every_table_says_so(tmp_path: Path) -> None:
    nothing = performance.read_results(tmp_path / "results.json")
    assert nothing is None
    for make in (performance.short, performance.machine, performance.goals, performance.others):
        assert make(nothing) == performance.NOTHING
    assert performance.plots(tmp_path) == performance.NOTHING


def test_only_plots_that_are_there_are_shown(tmp_path: Path) -> None:
    (tmp_path / "latency.svg").touch()
    assert performance.plots(tmp_path) == "![Latency by rate](bench/latency.svg)"


def test_results_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS), encoding="utf-8")
    assert performance.read_results(path) == RESULTS


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1,234")])
def test_numbers(value: float, text: str) -> None:
    assert performance.number(value) == text
