"""Plots are drawn only from existing figures."""

from pathlib import Path
from typing import Any

import pytest

from deploy.performance import PLOTS

pytest.importorskip("matplotlib", reason="comes with the benchmark's packages: make bench")

from tests.bench.results.plots import PICTURES, draw


def figure(name: str, value: float, unit: str = "µs", **rest: Any) -> dict[str, Any]:
    nothing = {"goal": "", "peer": None, "peer_value": None, "ratio": None, "pass": None, "spread": None, "note": ""}
    return {"name": name, "value": value, "unit": unit, **nothing, **rest}


FIGURES = [
    figure(
        "tally.cpu.hot.peer", 6.0, goal="≥ 4 × less", peer="Quix Streams", peer_value=36.0, ratio=6.0, spread=[5.5, 7]
    ),
    figure("road.sustained", 2_000.0, "1/s", peer="peer (a)", peer_value=700.0, ratio=2.86, **{"pass": False}),
    figure("road.visible_p99.500", 60.0, "ms", goal="≤ 150 ms", spread=[50.0, 90.0]),
    figure("road.visible_p99.1000", 200.0, "ms", goal="≤ 500 ms"),
    figure("road.cpu.ingest", 110.0),
    figure("road.cpu.kafka", 300.0),
    figure("drain.cpu.verify", 50.0),
    figure("drain.cpu.verify.peer", 50.0, peer="FastStream", peer_value=500.0),
    figure("stages.verify.PostgreSQL", 20.0),
    figure("stages.verify.decode", 12.0),
]


def test_all_pictures_are_drawn_and_the_page_knows_them(tmp_path: Path) -> None:
    assert list(PICTURES) == list(PLOTS)
    assert draw({"figures": FIGURES}, tmp_path) == list(PICTURES)
    peers = (tmp_path / "peers.svg").read_text(encoding="utf-8")
    assert "36 µs  Quix Streams" in peers
    assert "700 1/s  peer (a)" in peers
    cpu = (tmp_path / "cpu.svg").read_text(encoding="utf-8")
    assert "kafka 300" in cpu
    assert "verify 50" in cpu
    assert "peer" not in cpu
    assert "PostgreSQL 20" in (tmp_path / "stages.svg").read_text(encoding="utf-8")


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    names = draw({"figures": FIGURES}, once)
    assert draw({"figures": FIGURES}, again) == names
    for name in names:
        assert (once / name).read_bytes() == (again / name).read_bytes()


def test_without_figures_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw({"figures": [figure("read.rss", 90.0, "MB")]}, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
