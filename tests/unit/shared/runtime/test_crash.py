"""The crash switch stops the process, whenever it is thrown, and keeps the first bug."""

from __future__ import annotations

import structlog

from shared.runtime.crash import CrashSwitch


def test_the_first_bug_is_kept_and_logged_and_each_one_stops() -> None:
    crash, stops = CrashSwitch(), []
    crash.connect(lambda: stops.append("stop"))
    first = KeyError("first")
    with structlog.testing.capture_logs() as logs:
        crash.fail(first)
        crash.fail(ValueError("second"))
    assert crash.bug is first
    assert stops == ["stop", "stop"]
    assert [(line["event"], line["exc_info"]) for line in logs] == [("bug", first)]


def test_a_bug_that_came_before_there_was_anything_to_stop_stops_it_then() -> None:
    crash, stops = CrashSwitch(), []
    crash.fail(KeyError("early"))
    crash.connect(lambda: stops.append("stop"))
    assert stops == ["stop"]


def test_a_switch_that_nobody_threw_stops_nothing() -> None:
    crash, stops = CrashSwitch(), []
    crash.connect(lambda: stops.append("stop"))
    assert crash.bug is None
    assert stops == []
