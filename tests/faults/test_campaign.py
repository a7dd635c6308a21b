"""A small campaign, always the same: a fault of every part, on the real system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from tests.faults.campaign import play
from tests.faults.catalogue import catalogue
from tests.faults.report import Report, last_line
from tests.faults.schedule import plan

_RUNS: Final = 2
_KINDS: Final = (
    "verify-killed-before-publish",
    "tally-killed-after-count",
    "verify-zombie-before-commit",
    "notify-killed-after-smtp",
    "kafka-cut",
    "redis-restarted-empty",
    "postgres-restarted",
    "verify-redelivered",
)


@pytest.mark.usefixtures("needs_apache")
async def test_nothing_is_lost_and_nothing_counts_twice_whatever_is_made_to_fail(tmp_path: Path) -> None:
    known = catalogue()
    with Report() as report:
        result = await play(
            [known[kind] for kind in _KINDS],
            seed=1,
            runs=_RUNS,
            signatures=5_000,
            rate=500,
            faults=len(_KINDS) // _RUNS,
            state_dir=tmp_path,
            report=report,
        )
    assert result.ok, [violation for run in result.runs for violation in run.violations]
    assert [run.not_played for run in result.runs] == [[]] * _RUNS
    assert set(result.faults) == set(_KINDS)
    assert "lost 0, double 0, milestones double 0" in last_line(result)
    told = json.loads(result.as_json())
    assert told["ok"] is True
    assert told["not_played"] == {}
    assert told["signatures"] > _RUNS * 5_000
    assert told["recovery_seconds"]["max"] is not None


def test_every_kind_comes_up_equally_often() -> None:
    known = list(catalogue().values())
    runs = [plan(known, number=number, seed=7, faults=6) for number in range(1, 101)]
    times = {fault.kind: 0 for fault in known}
    for planned in (one for run in runs for one in run.faults):
        times[planned.fault.kind] += 1
    assert max(times.values()) - min(times.values()) <= 1
    assert min(times.values()) >= 1, "a hundred runs play everything"


def test_a_run_can_be_planned_again_alone() -> None:
    known = list(catalogue().values())
    assert plan(known, number=37, seed=7) == plan(list(reversed(known)), number=37, seed=7)
    assert plan(known, number=37, seed=7) != plan(known, number=37, seed=8)
