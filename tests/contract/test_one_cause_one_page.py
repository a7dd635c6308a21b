"""One cause pages once: promtool finds the alerts that a cause fires, and a real Alertmanager the notifications."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from ruamel.yaml import YAML
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.local.parts.ports import LOOPBACK, free_port
from deploy.local.parts.process import Process
from deploy.local.parts.service import SERVICES, ServiceName
from tests.contract.alerts.causes import CAUSES, NEEDED, Cause, Fired
from tests.contract.test_alerts import ALERTS, RULES, promtool, rendered
from tests.needs import UNPACKED
from tests.support.exported_metrics import registry_of
from tests.support.waiting import eventually

CONFIGURATION = RULES.parent / "alertmanager.yml"

_LAST = "GroundswellLast"
"""An alert that nothing inhibits: when it is sent, all earlier notifications have been sent."""


def program(*names: str) -> str:
    found = next(
        (path for name in names for where in (None, UNPACKED) if (path := shutil.which(name, path=where))), None
    )
    if found is None:
        pytest.fail(f"{names[0]} is missing: make test fetches it where it may (Debian: prometheus-alertmanager)")
    return found


def of_rule(fired: Fired) -> dict[str, str]:
    """All labels of an alert."""
    name, labels = fired
    rule = ALERTS[f"Groundswell{name}"]
    always = {label: value for label, value in rule["labels"].items() if "{{" not in value}
    return {"alertname": f"Groundswell{name}", **always, **labels}


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_a_cause_fires_these_alerts_and_no_others(cause: Cause, tmp_path: Path) -> None:
    expected: list[dict[str, Any]] = []
    for moment, fired in cause.fires.items():
        for alert in ALERTS:
            labels = [of_rule(one) for one in fired if f"Groundswell{one[0]}" == alert]
            for one in labels:
                one.pop("alertname")
            alerts = [{"exp_labels": one, "exp_annotations": rendered(alert, one)} for one in labels]
            expected.append({"eval_time": moment, "alertname": alert, "exp_alerts": alerts})
    tests = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in cause.series.items()],
                "alert_rule_test": expected,
            }
        ],
    }
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps(tests))  # JSON is YAML
    promtool("test", "rules", file)


@pytest.mark.parametrize("service", SERVICES)
def test_the_readiness_checks_of_the_causes_are_those_of_the_services(service: ServiceName) -> None:
    found = {
        sample.labels["check"]: sample.labels["needed"]
        for family in registry_of(service).collect()
        for sample in family.samples
        if sample.name == "groundswell_readiness_failing"
    }
    assert found == NEEDED[service]


def test_alertmanager_accepts_its_configuration() -> None:
    done = subprocess.run(
        [program("amtool"), "check-config", str(CONFIGURATION)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def inhibit_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = YAML(typ="safe").load(CONFIGURATION.read_text(encoding="utf-8"))["inhibit_rules"]
    return rules


def test_every_alert_that_a_rule_of_inhibition_names_is_there() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert set(re.findall(r"\bGroundswell\w+", text)) <= ALERTS.keys()
    assert all(rule["source_matchers"] and rule["target_matchers"] for rule in inhibit_rules())


class Alertmanager(Process):
    """Alertmanager with the shipped configuration, whose receivers are a webhook, and which waits less."""

    def __init__(self, webhook: str, place: Path) -> None:
        super().__init__(name="alertmanager", log_file=place / "alertmanager.log")
        self._webhook, self._place, self._port = webhook, place, free_port()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        return {}

    async def _prepare(self) -> None:
        configuration = YAML(typ="safe").load(CONFIGURATION.read_text(encoding="utf-8"))
        configuration["route"] |= {"group_wait": "2s", "group_interval": "2s"}
        for receiver in configuration["receivers"]:
            receiver["webhook_configs"] = [{"url": f"{self._webhook}/{receiver['name']}", "send_resolved": False}]
        (self._place / "alertmanager.yml").write_text(json.dumps(configuration))

    def _command(self) -> Sequence[str | Path]:
        return [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={self._place / 'alertmanager.yml'}",
            f"--storage.path={self._place / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self._port}",
            "--cluster.listen-address=",
        ]

    async def _is_ready(self) -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"{self.url}/-/ready")).status_code == 200
        except httpx.TransportError:
            return False


class People:
    """A webhook that keeps the notifications, by receiver."""

    def __init__(self) -> None:
        self.told: dict[str, list[dict[str, Any]]] = {"pages": [], "tickets": []}
        self.port = free_port()

    async def _take(self, request: Request) -> Response:
        self.told[request.path_params["receiver"]].append(await request.json())
        return Response()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = Starlette(routes=[Route("/{receiver}", self._take, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, host=LOOPBACK, port=self.port, log_config=None))
        serving = asyncio.create_task(server.serve())
        try:
            yield f"http://{LOOPBACK}:{self.port}"
        finally:
            server.should_exit = True
            await serving

    def names(self, receiver: str) -> set[str]:
        """The alerts that it was notified of."""
        return {alert["labels"]["alertname"] for told in self.told[receiver] for alert in told["alerts"]}

    async def have(self, receiver: str, alert: str) -> None:
        """Wait for the notification of an alert."""

        async def told() -> bool:
            return f"Groundswell{alert}" in self.names(receiver)

        await eventually(told, f"{receiver} have {alert}")

    def notifications(self, receiver: str) -> int:
        """The number of notifications, without the last alert."""
        return sum(
            any(alert["labels"]["alertname"] != _LAST for alert in told["alerts"]) for told in self.told[receiver]
        )


async def fire(http: httpx.AsyncClient, alerts: Iterable[dict[str, str]]) -> None:
    """Send alerts as Prometheus does."""
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await http.post("/api/v2/alerts", json=[{"labels": labels, "endsAt": until} for labels in alerts])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
async def test_a_cause_sends_one_page(cause: Cause, tmp_path: Path) -> None:
    people = People()
    async with (
        people.listening() as webhook,
        Alertmanager(webhook, tmp_path) as alertmanager,
        httpx.AsyncClient(base_url=alertmanager.url, trust_env=False) as http,
    ):
        for fired in cause.fires.values():  # as they come, and none of them ends
            await fire(http, [of_rule(one) for one in fired])
            await all_sent(http, people)
        if cause.page:
            await people.have("pages", cause.page)
        for ticket in cause.tickets:
            await people.have("tickets", ticket)
    assert people.names("pages") - {_LAST} == ({f"Groundswell{cause.page}"} if cause.page else set())
    assert people.notifications("pages") == (1 if cause.page else 0)
    assert people.names("tickets") - {_LAST} == {f"Groundswell{ticket}" for ticket in cause.tickets}


async def all_sent(http: httpx.AsyncClient, people: People) -> None:
    """Wait until Alertmanager has processed all alerts: it then sends one more page and ticket, which nothing mutes."""
    number = str(len(people.told["pages"]) + len(people.told["tickets"]))
    last = [{"alertname": _LAST, "severity": severity, "cause": f"last-{number}"} for severity in ("page", "ticket")]
    await fire(http, last)

    def came(receiver: str) -> bool:
        return any(
            alert["labels"]["cause"] == f"last-{number}" for told in people.told[receiver] for alert in told["alerts"]
        )

    async def both_came() -> bool:
        return came("pages") and came("tickets")

    await eventually(both_came, "the last page and ticket are sent")


async def test_two_causes_send_two_pages(tmp_path: Path) -> None:
    """Redis away does not hide that ingest refuses signatures for a reason of its own, nor that verify stands still."""
    people = People()
    alerts: list[Fired] = [
        ("PartAway", {"check": "redis", "cause": "redis"}),
        ("SigningRefused", {"reason": "overloaded", "cause": "load"}),
        ("ConsumerHeld", {"job": "verify", "instance": "verify-a"}),
        ("ConsumerHeld", {"job": "tally", "instance": "tally-a"}),
    ]
    async with (
        people.listening() as webhook,
        Alertmanager(webhook, tmp_path) as alertmanager,
        httpx.AsyncClient(base_url=alertmanager.url, trust_env=False) as http,
    ):
        await fire(http, map(of_rule, alerts))
        await all_sent(http, people)
        for alert in ("PartAway", "SigningRefused", "ConsumerHeld"):
            await people.have("pages", alert)
    pages = [alert["labels"] for told in people.told["pages"] for alert in told["alerts"]]
    assert {(page["alertname"], page.get("job")) for page in pages if page["alertname"] != _LAST} == {
        ("GroundswellPartAway", None),
        ("GroundswellSigningRefused", "ingest"),
        ("GroundswellConsumerHeld", "verify"),
    }
