"""What the demo prints: every mismatch by name for people, one object with agreed keys for programs."""

import io
import json

from rich.console import Console

from deploy.demo.checks import Check, run_checks
from deploy.demo.report import Report, print_checks
from deploy.demo.watching.live import Seen, line, table
from tests.unit.deploy.demo.perfect import SURGE, perfect_observation, perfect_progress


def printed(report: Report) -> str:
    out = io.StringIO()
    print_checks(Console(file=out, width=100), report)
    return out.getvalue()


def perfect_report() -> Report:
    progress, observed = perfect_progress(), perfect_observation()
    return Report(
        broker="embedded",
        seconds=12.34,
        cpu_seconds={"verify": 1.26, "demo": 3.0},
        checks=run_checks(SURGE, progress, observed),
        progress=progress,
        observed=observed,
    )


def test_the_json_object_has_exactly_the_agreed_keys() -> None:
    found = json.loads(perfect_report().as_json(SURGE))
    assert list(found) == [
        "ok",
        "broker",
        "supporters",
        "petitions",
        "sent",
        "outcomes",
        "milestones",
        "mails",
        "drift",
        "seconds",
        "cpu_seconds",
    ]
    assert found["ok"] is True
    assert found["petitions"]["quillmere-market-benches"] == {"expected": 3, "verified": 3, "tally": 3}
    assert found["supporters"] == sum(petition["tally"] for petition in found["petitions"].values())
    assert found["sent"] == sum(found["outcomes"].values())
    assert (found["seconds"], found["cpu_seconds"]) == (12.3, {"verify": 1.3, "demo": 3.0})
    assert found["drift"] == 0


def test_a_demo_that_checked_nothing_or_misses_something_is_not_ok() -> None:
    assert not Report(broker="embedded").ok
    assert json.loads(Report(broker="embedded").as_json(SURGE))["ok"] is False
    report = perfect_report()
    assert report.ok
    report.missing = ["dead letters: 3 of 4"]
    assert not report.ok
    assert "still missing: dead letters: 3 of 4" in printed(report)


def test_every_check_is_printed_with_both_figures_and_a_wrong_one_with_its_details() -> None:
    report = perfect_report()
    report.checks = [*report.checks, Check("mails", "to x@y.example", 4, 3, ("at 1,000: 0 times",))]
    text = printed(report)
    assert "WRONG" in text
    assert "wrong: mails, to x@y.example: 3 instead of 4" in text
    assert "at 1,000: 0 times" in text
    assert text.count("ok") > 30


def test_the_live_table_shows_every_petition_and_the_line_everything_that_moves() -> None:
    out = io.StringIO()
    seen = Seen(counts={"lake-evening-ferry": 700}, lag={"verify": 12, "tally": 3}, rate=1234.5)
    progress = perfect_progress()
    Console(file=out, width=120).print(table(SURGE.petitions, progress, seen))
    for petition in SURGE.petitions.open:
        assert petition.state.title in out.getvalue()
    text = line(progress, seen)
    assert "counted 700 (1,234/s)" in text
    assert "lag: verify 12, tally 3" in text
    assert f"sent {SURGE.expectation.sent:,}" in text
