"""docs/failure-modes.md describes every fault that the harness plays, and everything that it names exists."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import asyncpg
import pytest
import redis.exceptions
from typer.main import get_command

from deploy.cli import app
from deploy.operate import SERVICES, settings_of
from shared.runtime.failures import is_transient
from shared.runtime.settings import environment_name
from tests.contract.alerts.causes import NEEDED
from tests.contract.test_alerts import ALERTS
from tests.faults.catalogue import catalogue
from tests.support.exported_metrics import metrics_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "failure-modes.md"
TEXT = PAGE.read_text(encoding="utf-8")
OF_OTHERS = {"GROUNDSWELL_FAILPOINTS", "FORWARDED_ALLOW_IPS"}


def tables() -> dict[str, list[list[str]]]:
    """The rows of the table under each heading, without its head."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("|"):
            found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split(" | ")])
    return {heading: rows[2:] for heading, rows in found.items()}


TABLES = tables()
FAULTS = [
    row for heading, rows in TABLES.items() if heading not in ("Alerts", "Readiness", "Campaigns") for row in rows
]
SHOWN_BY = [re.findall(r"`([^`]+)`", row[-1]) for row in FAULTS]


def sources() -> str:
    files = (path for top in ("services", "shared") for path in (ROOT / top).rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_a_row_says_who_sees_what_what_heals_what_to_do_and_what_shows_it() -> None:
    assert {len(row) for row in FAULTS} == {6}
    assert {len(row) for row in TABLES["Alerts"]} == {3}
    assert all(cell for rows in TABLES.values() for row in rows for cell in row)


def test_every_fault_of_the_catalogue_is_in_a_row_and_every_row_is_of_the_catalogue_or_of_a_test() -> None:
    kinds = set(catalogue())
    patterns = {name for names in SHOWN_BY for name in names if not name.startswith("test_")}
    missing = sorted(kind for kind in kinds if not any(fnmatchcase(kind, pattern) for pattern in patterns))
    assert missing == [], "docs/failure-modes.md has no row of these"
    nothing = sorted(pattern for pattern in patterns if not any(fnmatchcase(kind, pattern) for kind in kinds))
    assert nothing == [], "no fault of the catalogue is called so"


def test_the_table_of_readiness_is_what_the_services_say() -> None:
    assert {len(row) for row in TABLES["Readiness"]} == {5}
    told: dict[str, dict[str, str]] = {service: {} for service in SERVICES}
    for row in TABLES["Readiness"]:
        for service, cell in zip(("ingest", "verify", "tally", "notify"), row[1:], strict=True):
            if said := re.match(r"(not ready|degraded): `(\w+)`$", cell):
                told[service][said[2]] = "yes" if said[1] == "not ready" else "no"
            else:
                assert cell in ("ready", "–")
    assert told == NEEDED


def test_every_test_that_a_row_names_is_there() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^(?:async )?def (test_\w+)", text, flags=re.MULTILINE))
    named = {name for names in SHOWN_BY for name in names if name.startswith("test_")}
    assert named
    assert sorted(named - tests) == []


def test_only_what_nothing_can_show_has_nothing_to_show_it() -> None:
    bare = [row[0] for row, names in zip(FAULTS, SHOWN_BY, strict=True) if not names]
    assert bare == ["another `SIGNER_PEPPER` for both"]


def test_every_alert_has_a_row_that_says_how_urgent_it_is_and_no_other_is_named() -> None:
    rows = [re.match(r'<a id="[\w-]+"></a>`(\w+)` (\w+)$', row[0]) for row in TABLES["Alerts"]]
    assert {row[1]: row[2] for row in rows if row} == {
        name: rule["labels"]["severity"] for name, rule in ALERTS.items()
    }
    assert set(re.findall(r"\bGroundswell[A-Z]\w+", TEXT)) == ALERTS.keys()


def test_every_metric_is_exported_by_a_service() -> None:
    exported = {name for service in SERVICES for name, _ in metrics_of(service)}
    named = set(re.findall(r"\bgroundswell_\w+", TEXT))
    assert named
    # A histogram is known by its name; what it exports has an ending.
    assert sorted(name for name in named if not {name, f"{name}_bucket"} & exported) == []


def test_what_readyz_and_the_logs_are_quoted_with_is_what_the_services_say() -> None:
    said, quotes = sources(), re.findall("“([^”]+)”", TEXT)
    assert len(quotes) > 20
    for quote in quotes:
        for name in re.findall(r"\b\w+Error\b", quote):
            error = getattr(asyncpg, name, None) or getattr(redis.exceptions, name)
            assert is_transient(error("")), f"{quote}: nobody waits for that"
        # What is not written out in the code: which step is held, by what, and for how long.
        for part in re.split(r"…|\b\w+Error\b|\d+ s$|^(?:batch|commit) ", quote):
            assert part.strip() in said, quote
    events = re.findall(r"log (?:line )?`(\w+)`", TEXT)
    assert len(events) > 5
    assert sorted(event for event in events if f'"{event}"' not in said) == []


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    anchors = {
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in re.findall("^## (.+)$", TEXT, re.M)
    }
    for link in links:
        file, _, anchor = link.partition("#")
        assert (PAGE.parent / file).exists(), link
        assert not anchor or anchor in anchors, link


def test_every_command_and_variable_is_there() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"`?\bgroundswell (\w+)\b(?=[ `])", TEXT))
    assert named >= {"audit", "rebuild", "faults", "check", "topics"}
    assert sorted(named - commands.keys()) == []
    known = {
        environment_name(settings_of(service), field)
        for service in SERVICES
        for field in settings_of(service).model_fields
    }
    variables = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT)) - OF_OTHERS
    assert variables
    assert sorted(variables - known) == []


def test_how_a_campaign_is_repeated_is_said() -> None:
    assert "groundswell faults --runs 100 --seed 1 --json" in TEXT
    for word in ("make faults`", "make faults-mutants`", "recovery_seconds", "mail_window", "milestones_double"):
        assert word in TEXT


@pytest.mark.parametrize("heading", ["What is not covered", "Campaigns"])
def test_the_page_has_its_other_parts(heading: str) -> None:
    assert f"\n## {heading}\n" in TEXT
