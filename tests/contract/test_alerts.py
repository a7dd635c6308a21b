"""The alert rules: accepted by promtool, firing when they should and only then, and of metrics that the services export."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deploy.operate import SERVICES
from services.ingest.problems import KINDS
from services.tally.settings import Settings as TallySettings
from shared.contract.topics import GROUPS
from tests.contract.alerts import CASES
from tests.contract.alerts.case import QUIET_AT, Case, Series
from tests.needs import UNPACKED
from tests.support.exported_metrics import metrics_of

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
OF_PROMETHEUS = {"up": {"job", "instance"}}
CAUSES = {
    *("kafka", "redis", "postgres", "catalogue", "clock", "smtp"),
    *("process", "records", "data", "clients", "load", "mail", "bug", "unknown"),
}
OF_TARGETS = {"job", "instance"}
"""Labels that Prometheus adds to every sample."""


def rules() -> dict[str, dict[str, Any]]:
    """Every alert rule by its name."""
    groups = YAML(typ="safe").load(RULES.read_text(encoding="utf-8"))["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found), "two alerts of one name"
    return {rule["alert"]: rule for rule in found}


ALERTS = rules()


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool") or shutil.which("promtool", path=UNPACKED)
    if program is None:
        pytest.fail("promtool is missing: make test fetches it where it may (Debian: prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_prometheus_accepts_the_rules_and_loads_them() -> None:
    promtool("check", "rules", RULES)
    configuration = YAML(typ="safe").load((RULES.parent / "prometheus.yml").read_text(encoding="utf-8"))
    assert configuration["rule_files"] == [RULES.name]


# ------------------------------------------------------------------------------------------------ when they fire


def rendered(alert: str, labels: dict[str, str]) -> dict[str, str]:
    """The alert's annotations for an alert with these labels."""
    used = re.compile(r"\{\{ \$labels\.(\w+) \}\}")
    texts: dict[str, str] = ALERTS[alert]["annotations"]
    labels = {**ALERTS[alert]["labels"], **labels}
    return {name: used.sub(lambda label: labels[label[1]], text) for name, text in texts.items()}


def shown(series: Series, alert: str, expected: dict[str, list[dict[str, str]]]) -> dict[str, Any]:
    """A test for promtool: these series, and the alerts expected at each time."""
    always = {name: value for name, value in ALERTS[alert]["labels"].items() if "{{" not in value}
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": moment,
                "alertname": alert,
                "exp_alerts": [
                    {"exp_labels": {**always, **labels}, "exp_annotations": rendered(alert, labels)}
                    for labels in alerts
                ],
            }
            for moment, alerts in expected.items()
        ],
    }


def try_out(alert: str, tests: list[dict[str, Any]], place: Path) -> None:
    """Let promtool run tests of one alert. It gets that rule alone: it would evaluate all of them for each test."""
    rule, file = place / "rule.yml", place / "tests.yml"  # JSON is YAML
    rule.write_text(json.dumps({"groups": [{"name": "one", "rules": [ALERTS[alert]]}]}))
    file.write_text(json.dumps({"rule_files": [str(rule)], "evaluation_interval": "15s", "tests": tests}))
    promtool("test", "rules", file)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.at}")
def test_an_alert_fires_when_it_should_and_otherwise_stays_silent(case: Case, tmp_path: Path) -> None:
    tests = [shown(case.fires, case.alert, {case.at: list(case.labels)})]
    tests += [shown(series, case.alert, {moment: [] for moment in QUIET_AT}) for series in case.stays]
    try_out(case.alert, tests, tmp_path)


def test_every_alert_is_shown_both() -> None:
    assert {case.alert for case in CASES} == ALERTS.keys()
    assert {case.alert for case in CASES if case.stays} == ALERTS.keys()


def test_a_promise_that_is_not_kept_is_found_out(tmp_path: Path) -> None:
    """A test of the tests above: promtool reports an alert that should fire and does not, and the reverse."""
    case = CASES[0]
    for series, labels in ((case.stays[0], list(case.labels)), (case.fires, [])):
        with pytest.raises(AssertionError, match=case.alert):
            try_out(case.alert, [shown(series, case.alert, {case.at: labels})], tmp_path)


# ------------------------------------------------------------------------------------------- what they are made of


@pytest.fixture(scope="module")
def exported() -> dict[str, dict[str, set[str]]]:
    """Of each service, the metrics that it exports, and the labels of each."""
    return {service: dict(metrics_of(service)) for service in SERVICES}


def expressions() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Every metric that a rule reads: the alert, the metric, and the label matchers."""
    for alert, rule in ALERTS.items():
        for metric, matchers in re.findall(r"\b((?:groundswell|process)_\w+|up)\b(?:\{([^}]*)\})?", rule["expr"]):
            yield alert, metric, dict(re.findall(r'(\w+)(?:!?=~?)"([^"]*)"', matchers))


def test_every_metric_and_label_of_a_rule_is_exported_by_a_service(exported: dict[str, dict[str, set[str]]]) -> None:
    read = list(expressions())
    assert {alert for alert, _, _ in read} == ALERTS.keys()
    for alert, metric, matchers in read:
        if metric in OF_PROMETHEUS:
            continue
        jobs = re.findall(r"\w+", matchers.get("job", ""))
        having = [service for service in SERVICES if metric in exported[service]]
        assert having, f"{alert}: no service exports {metric}"
        assert set(jobs) <= set(having), f"{alert}: {metric} is not exported by all of {jobs}"
        labels = exported[having[0]][metric] | OF_TARGETS
        assert matchers.keys() <= labels, f"{alert}: {metric} has no label {matchers.keys() - labels}"


def test_every_label_that_a_rule_groups_by_is_one_of_its_metrics(exported: dict[str, dict[str, set[str]]]) -> None:
    known = {alert: set(OF_TARGETS) for alert in ALERTS}
    for alert, metric, _ in expressions():
        known[alert] |= set().union(*(exported[service].get(metric, set()) for service in SERVICES))
    for alert, rule in ALERTS.items():
        known[alert] |= set(re.findall(r'label_replace\([^"]*\{[^}]*\}[^"]*"(\w+)"', rule["expr"]))
        for labels in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
            assert set(re.findall(r"\w+", labels)) <= known[alert], alert


def test_metrics_that_nobody_exports_are_found_out(exported: dict[str, dict[str, set[str]]]) -> None:
    names = set().union(*exported.values())
    assert "groundswell_tally_drift" in names
    assert "groundswell_consumer_lag_records" in names
    assert "process_start_time_seconds" in names
    assert "groundswell_tally_drifts" not in names
    assert not any(name.startswith("groundswell_tally") for name in exported["verify"])


def test_values_that_rules_ask_for_are_values_that_services_give() -> None:
    given = {
        "reason": {*KINDS, "not_decided", "cannot_be_applied", "cannot_be_read"},
        "needed": {"yes", "no"},
        "cause": {
            *("crowded", "another_redis", "fence_behind", "missing"),
            *("damaged", "fence_unknown", "drift", "uncounted", "announced"),
        },
        "outcome": {"away", "stale", "full", "failed", "withheld", "forged"},
        "result": {"right", "wrong"},
        "kind": {"unreadable", "foreign"},
        "job": set(SERVICES),
        "check": {"clock", "kafka", "redis", "postgres"},
        "group": {group.name for group in GROUPS},
    }
    source = "\n".join(
        path.read_text(encoding="utf-8") for top in ("services", "shared") for path in (ROOT / top).rglob("*.py")
    )
    for alert, _, matchers in expressions():
        for label, value in matchers.items():
            for one in value.split("|"):
                assert one in given[label], f"{alert}: {label}={one}"
                assert label == "job" or f'"{one}"' in source, f"{alert}: no service says {one}"


def test_the_streams_alert_is_four_fifths_of_the_limit() -> None:
    limit: int = TallySettings.model_fields["max_streams"].default
    assert f"> {limit * 4 // 5}\n" in ALERTS["GroundswellStreamsNearLimit"]["expr"]


# ------------------------------------------------------------------------------------------- what they say and where to


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_is_wrong_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert alert.startswith("Groundswell")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert "{{" in rule["labels"]["cause"] or rule["labels"]["cause"] in CAUSES
    assert rule["annotations"].keys() == {"summary", "action", "runbook"}
    assert len(rule["annotations"]["summary"]) < 100
    assert 20 < len(rule["annotations"]["action"]) < 120
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == re.sub(r"(?<!^)(?=[A-Z])", "-", alert.removeprefix("Groundswell")).lower()
    assert f'<a id="{anchor}"></a>' in (ROOT / file).read_text(encoding="utf-8")
