"""The examples for petition sites and operators run as they stand; those for subscribers have test_subscriber.py."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from deploy.operate import SERVICES
from services.ingest.signing.admission import Submission
from shared.contract.bounds.texts import MOST_CHARACTERS
from tests.contract.test_alerts import promtool
from tests.needs import EXAMPLES
from tests.support.exported_metrics import metrics_of
from tests.support.system import System

ELSEWHERE = {"subscriber.py", "subscriber.mjs", "README.md"}
"""Run by test_subscriber.py; read by tests/unit/test_readme.py."""


def test_every_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} - ELSEWHERE == {
        "sign.py",
        "form.html",
        "dashboard.json",
    }


# ----------------------------------------------------------------------------------------------------- petition sites


async def sign(*arguments: str) -> tuple[int, str, str]:
    """Run examples/sign.py with nothing but Python's standard library."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",  # no installed packages
        EXAMPLES / "sign.py",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_a_program_signs_and_is_told_what_became_of_it(system: System) -> None:
    await system.start_petition("example-program")
    code, said, errors = await sign(system.ingest, "example-program", "robin@mail.example", "Robin Example", "NL")
    assert (code, errors) == (0, "")
    accepted, outcome = said.splitlines()
    assert accepted.startswith("accepted ")
    assert outcome.strip() == "verified"
    await system.counts_to("example-program", 1)


async def test_a_program_that_is_refused_says_why(system: System) -> None:
    await system.start_petition("example-refused")
    code, said, errors = await sign(system.ingest, "example-refused", "robin", "Robin Example", "NL")
    assert (code, said) == (1, "")
    assert "refused: " in errors
    assert '"email"' in errors


class Form(HTMLParser):
    """The address of a form, and its fields with their limits."""

    def __init__(self) -> None:
        super().__init__()
        self.action, self.fields = "", dict[str, int | None]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            assert values["method"] == "post"
            self.action = values["action"] or ""
        elif name := values.get("name"):
            most = values.get("maxlength")
            self.fields[name] = int(most) if most is not None else None


def form() -> Form:
    found = Form()
    found.feed((EXAMPLES / "form.html").read_text(encoding="utf-8"))
    return found


def test_the_form_has_the_fields_of_a_submission_and_their_limits() -> None:
    assert form().fields.keys() == Submission.model_fields.keys()
    limited = {name: most for name, most in form().fields.items() if most is not None}
    assert limited.keys() == {"email", "name", "postcode", "comment"}
    assert limited == {name: MOST_CHARACTERS[name] for name in limited}


async def test_the_form_signs_and_leads_to_the_thank_you_page(system: System) -> None:
    await system.start_petition("night-bus", policy={"require_consent": True})
    address = form().action.replace("https://sign.example", system.ingest)
    filled = dict.fromkeys(form().fields, "") | {
        "name": "Robin Example",
        "email": "robin@mail.example",
        "country": "NL",
        "consent": "true",
    }
    answer = await system.http.post(address, data=filled, headers={"accept": "text/html"})
    assert answer.status_code == 303
    assert "/p/night-bus/thanks" in answer.headers["location"]
    await system.counts_to("night-bus", 1)


# ---------------------------------------------------------------------------------------------------------- operators

DASHBOARD = json.loads((EXAMPLES / "dashboard.json").read_text(encoding="utf-8"))
QUERIES = {panel["title"]: target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(QUERIES.values())]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", file)


@pytest.mark.parametrize("title", QUERIES)
def test_a_panel_shows_what_a_service_exports(title: str) -> None:
    exported = {name for service in SERVICES for name, _ in metrics_of(service)}
    named = set(re.findall(r"\bgroundswell_\w+", QUERIES[title]))
    assert named
    assert named <= exported


def test_a_panel_says_what_it_shows_and_overlaps_no_other() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["description"] for panel in DASHBOARD["panels"])
