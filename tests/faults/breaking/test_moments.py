"""A fault waits for its moment, the run brings it about, and faults that were not played are reported."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from tests.faults.breaking import moments
from tests.faults.breaking.moments import wait_for_moment
from tests.faults.fault import NotPlayed
from tests.faults.notes import begin_notes
from tests.faults.report import Report, last_line
from tests.faults.result import CampaignResult, RunResult
from tests.faults.world import World


class Place:
    """Where notes are kept, for a world that is not there."""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> World:
    """A run that brings about what is waited for at once."""
    monkeypatch.setattr(moments, "_BY_ITSELF_SECONDS", 0.0)
    world = cast("World", Place())
    begin_notes(world, [], {})
    return world


async def test_a_moment_that_is_there_is_not_brought_about(place: World) -> None:
    causes: list[int] = []
    begin_notes(place, [], {}).cause_moment = lambda: causes.append(1)
    await wait_for_moment(place, "a mail", lambda: True)
    assert causes == []


async def test_a_moment_that_does_not_come_by_itself_is_brought_about_until_it_does(place: World) -> None:
    causes: list[int] = []
    begin_notes(place, [], {}).cause_moment = lambda: causes.append(1)
    await wait_for_moment(place, "a mail", lambda: len(causes) == 3, look=0.001)
    assert len(causes) == 3


async def test_a_moment_that_never_comes_is_named(place: World) -> None:
    with pytest.raises(NotPlayed, match=r"a mail did not come in 0.05 s"):
        await wait_for_moment(place, "a mail", lambda: False, within=0.05)


def test_what_was_not_played_is_in_the_last_line_in_the_json_and_in_the_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunResult(1, signatures=10, not_played=[("smtp-cut", "a connection to smtp did not come in 90 s")])
    run.faults["kafka-cut"] += 1
    result = CampaignResult(1, [run])
    assert last_line(result).endswith("NOT PLAYED: smtp-cut")
    told: dict[str, Any] = json.loads(result.as_json())
    assert told["not_played"] == {"smtp-cut": 1}
    assert told["faults"] == {"kafka-cut": 1}
    report = Report()
    report.run_passed(run)
    report.summary(result)
    shown = capsys.readouterr().err
    assert "not played: smtp-cut: a connection to smtp did not come in 90 s" in shown
    assert [line.split()[1::2] for line in shown.splitlines() if "smtp-cut" in line and "not played" not in line] == [
        ["smtp-cut", "0", "1", "-", "-"]
    ]
