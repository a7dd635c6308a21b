"""The services' logs after a fault run: a fault explains each line, and nothing is personal."""

from __future__ import annotations

import json
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest

from shared.contract.topics import SIGNATURES_SUBMITTED
from shared.runtime.failpoints import FailpointRaised
from tests.faults.judging.logs import Line, findings
from tests.faults.judging.personal import PersonalData

PERSONAL = PersonalData({"lakepost.example", "brücke.example"}, {"Alma Mühlberg"}, {"ADMIN_TOKEN": "correct-horse"})

SUBMITTED = SIGNATURES_SUBMITTED.name


def _line(service: str = "verify", *, file: str | None = None, **fields: Any) -> Line:
    whole = {"logger": f"services.{service}", "level": "info", "service": service, **fields}
    return Line(Path(f"/logs/{file or service}.log"), json.dumps(whole))


def _found(*lines: Line, touched: str = "") -> list[str]:
    return findings(iter(lines), PERSONAL, frozenset(touched.split()))


def test_what_is_said_at_level_info_needs_no_explanation() -> None:
    assert _found(_line(event="partitions_assigned", partitions=[0, 1])) == []


@pytest.mark.parametrize(
    ("fields", "touched"),
    [
        ({"event": "batch_held", "level": "warning", "cause": "KafkaConnectionError"}, "kafka"),
        ({"event": "batch_held", "level": "warning", "cause": "LaneTaken"}, "verify"),
        ({"event": "batch_held", "level": "warning", "cause": "CannotConnectNowError"}, "postgres"),
        # Frozen in the middle of a transaction.
        ({"event": "batch_held", "level": "warning", "cause": "ConnectionDoesNotExistError"}, "verify"),
        ({"event": "postgres_away", "level": "warning", "cause": "ConnectionRefusedError"}, "postgres"),
        ({"event": "dead_letter", "level": "warning", "reason": "schema"}, "poison"),
        ({"event": "dead_letter", "level": "warning", "reason": "out_of_range", "topic": SUBMITTED}, "clock"),
        ({"event": "clock_wrong", "level": "warning", "ahead_of": {"kafka": 3600.0}}, "clock"),
    ],
)
def test_a_warning_is_explained_by_the_fault_that_causes_it_and_by_no_other(
    fields: dict[str, Any], touched: str
) -> None:
    assert _found(_line(**fields), touched=touched) == []
    (finding,) = _found(_line(**fields), touched="smtp")
    assert finding.startswith(f"unexplained warning of verify: {fields['event']}")


def test_a_bug_is_never_explained() -> None:
    everything = "kafka redis postgres smtp clock ingest verify tally notify poison"
    bug = _line(event="bug", level="error", exception="Traceback (most recent call last): …")

    (finding,) = _found(bug, touched=everything)

    assert finding.startswith("unexplained error of verify: bug")


def test_only_the_bug_that_a_fault_asked_for_is_explained_and_only_in_its_own_service() -> None:
    traceback = "".join(format_exception(FailpointRaised("verify.committed")))
    bug = _line(event="bug", level="error", exception=f"Traceback (most recent call last):\n  …\n{traceback}")

    assert _found(bug, touched="verify") == []
    assert len(_found(bug, touched="tally")) == 1


def test_a_traceback_is_unexplained_also_at_level_info_or_with_a_known_event() -> None:
    known = {"event": "batch_held", "level": "warning", "cause": "KafkaConnectionError"}

    assert len(_found(_line(event="partitions_assigned", exception="Traceback"))) == 1
    assert len(_found(_line(**known, exception="Traceback"), touched="kafka")) == 1


def test_the_same_thing_is_told_once_with_its_number() -> None:
    lines = [_line(event="batch_held", level="warning", cause="LaneTaken", wait=wait) for wait in range(7)]

    (finding,) = _found(*lines)

    assert "7 times" in finding


def test_a_line_that_is_no_json_is_found() -> None:
    (finding,) = _found(Line(Path("/logs/tally-3.log"), "Fatal Python error: Segmentation fault"))

    assert finding.startswith("a line of tally that is no JSON")


def test_the_service_is_known_from_the_log_s_name_also_of_a_second_instance() -> None:
    held = {"event": "batch_outlived_rebalance", "level": "warning"}

    assert _found(_line(file="verify-2", **held), touched="verify") == []
    (finding,) = _found(_line(file="verify-2", **held), touched="tally")
    assert finding.startswith("unexplained warning of verify")


@pytest.mark.parametrize(
    "text",
    ["alma.muhlberg@lakepost.example", "x@brücke.example", "Dear Alma Mühlberg", "Bearer correct-horse"],
)
def test_personal_data_and_secrets_are_found_in_any_line(text: str) -> None:
    everything = _line(event="anything", detail=text)  # JSON escapes what is not ASCII

    assert len(_found(everything)) == 1
    assert len(_found(Line(Path("/logs/ingest.log"), f"not JSON: {text}"))) == 2


def test_the_addresses_of_offices_are_no_personal_data() -> None:
    assert _found(_line(event="mail_sent", detail="council@run001-hot.test")) == []


def test_the_traceback_of_asyncpg_s_pool_is_explained_by_postgresql_being_away_and_by_nothing_else() -> None:
    line = _line(
        event="Failed to restore the pool connection floor; retrying",
        level="warning",
        logger="asyncpg.pool",
        exception="Traceback …\nasyncpg.exceptions.CannotConnectNowError: the database system is shutting down",
    )

    assert _found(line, touched="postgres") == []
    assert len(_found(line, touched="kafka")) == 1
