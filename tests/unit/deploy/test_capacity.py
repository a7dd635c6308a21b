"""`groundswell capacity`: the arithmetic by hand, its edges, and that nothing is made up."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import date
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.capacity.answer import Capacity
from deploy.capacity.compute import MAX_STREAMS, capacity, whole
from deploy.capacity.costs import COSTS, COSTS_FILE, CostsError, MeasuredCosts, as_json, nothing_measured, read_costs
from deploy.capacity.demand import SNAPSHOT_INTERVAL_MS, Demand
from deploy.capacity.show import amount, page_costs, page_tables, verdict
from deploy.cli import app
from deploy.cli.capacity import capacity as command

ROUND = {
    "ingest_cpu": 100.0,
    "verify_cpu": 50.0,
    "tally_cpu": 10.0,
    "kafka_cpu": 40.0,
    "postgres_cpu": 80.0,
    "postgres_rows": 5_000_000.0,
    "redis_cpu": 5.0,
    "ingest_rss": 100.0,
    "verify_rss": 120.0,
    "tally_rss": 80.0,
    "notify_rss": 60.0,
    "submitted_bytes": 400.0,
    "verified_bytes": 200.0,
    "rejected_bytes": 150.0,
    "snapshot_bytes": 1_000.0,
    "signature_row_bytes": 250.0,
    "ledger_row_bytes": 300.0,
    "wal_bytes": 900.0,
    "wal_bytes_after_checkpoint": 4_000.0,
    "redis_petition_bytes": 5_000.0,
    "redis_minute_bytes": 50.0,
    "redis_aof_bytes": 12.0,
    "stream_rss": 40.0,
    "stream_cpu": 50.0,
    "stream_bytes": 120.0,
}
"""Invented for the arithmetic; nothing was measured."""


def costs(**changed: float | None) -> MeasuredCosts:
    values: dict[str, float | None] = {**ROUND, **changed}
    return MeasuredCosts.model_validate(
        {
            "machine": {"cpu": "of a test"},
            "costs": {
                name: {
                    "value": values[name],
                    "unit": cost.unit,
                    "source": cost.source,
                    "date": None if values[name] is None else date(2026, 1, 2),
                }
                for name, cost in COSTS.items()
            },
        }
    )


def computed(measured: MeasuredCosts | None = None, **demand: Any) -> Capacity:
    """With numbers that divide well: a fifth does not count, cores are busy by half."""
    given = {"rate": 2_000.0, "signatures": 4_000_000, "duplicates": 0.2, "utilisation": 0.5, **demand}
    return capacity(Demand(**given), measured or costs())


def value(answer: Capacity, group: str, name: str) -> float:
    found = answer.of(group, name).value
    assert found is not None
    return found


def test_services_get_as_many_instances_as_their_cpu_at_half_a_core_each() -> None:
    answer = computed(rate=20_000.0)
    # 20,000/s: ingest 100 µs = 2 cores, verify 50 µs = 1 core, tally 16,000 facts of 10 µs = 0.16 cores.
    assert value(answer, "ingest", "CPU") == pytest.approx(2)
    assert value(answer, "ingest", "instances") == 4
    assert value(answer, "verify", "CPU") == pytest.approx(1)
    assert value(answer, "verify", "instances") == 2
    assert value(answer, "tally", "CPU") == pytest.approx(0.16)
    assert value(answer, "tally", "instances") == 1
    assert value(answer, "notify", "instances") == 1
    assert value(answer, "ingest", "memory") == 4 * 100 * 1024 * 1024
    assert value(answer, "tally", "memory") == 80 * 1024 * 1024


def test_less_than_one_instance_is_one() -> None:
    answer = computed(rate=0.5, signatures=1)
    assert value(answer, "ingest", "CPU") == pytest.approx(0.000_05)
    for service in ("ingest", "verify", "tally", "notify"):
        assert value(answer, service, "instances") == 1


def test_a_full_core_needs_no_second_because_of_a_rounding_error() -> None:
    assert whole(0.1 + 0.2) == 1
    assert whole((0.1 + 0.2) / 0.3) == 1
    assert value(computed(rate=10_000.0), "verify", "instances") == 1
    assert value(computed(rate=10_001.0), "verify", "instances") == 2


def test_partitions_divide_as_evenly_as_the_default_and_give_every_instance_one() -> None:
    few, many = computed(rate=10_000.0), computed(rate=130_000.0)
    assert value(few, "Kafka", "partitions of signatures.submitted") == 6
    assert value(many, "verify", "instances") == 13
    assert value(many, "Kafka", "partitions of signatures.submitted") == 18
    # 104,000 facts of 10 µs are 1.04 cores: three instances, had they many petitions.
    assert value(many, "Kafka", "partitions of signatures.verified") == 6


def test_broker_bytes_by_hand() -> None:
    answer = computed(replication=3)
    # a second: 2,000 of 400 B, 1,600 facts of 200 B, 400 refusals of 150 B, 4 snapshots of 1,000 B
    produced = 800_000 + 320_000 + 60_000 + 4_000
    assert value(answer, "Kafka", "produced") == pytest.approx(produced)
    assert value(answer, "Kafka", "written, all copies") == pytest.approx(3 * produced)
    # Followers take two copies; verify reads the submissions, tally the facts and the snapshots.
    assert value(answer, "Kafka", "sent to followers and services") == pytest.approx(
        2 * produced + 800_000 + 320_000 + 4_000
    )
    assert value(answer, "Kafka", "facts of one petition, one partition") == pytest.approx(320_000)
    assert value(answer, "Kafka", "CPU, for one copy") == pytest.approx(0.08)
    # 5,000,000 submissions, 4,000,000 facts, 1,000,000 refusals: all of them younger than 7 days at this rate.
    stored = 5_000_000 * 400 + 4_000_000 * 200 + 1_000_000 * 150
    assert value(answer, "Kafka", "stored, all copies") == pytest.approx(3 * stored)


def test_kafka_keeps_no_more_than_what_comes_within_the_retention() -> None:
    answer = computed(rate=1.0, duplicates=0.0, replication=1)
    # One a second: 604,800 in the 7 days of submissions, 2,592,000 in the 30 days of facts.
    assert value(answer, "Kafka", "stored, all copies") == pytest.approx(604_800 * 400 + 2_592_000 * 200)


def test_postgres_by_hand() -> None:
    answer = computed()
    assert value(answer, "PostgreSQL", "rows of signatures") == 5_000_000
    assert value(answer, "PostgreSQL", "rows of the ledger") == 4_000_000
    assert value(answer, "PostgreSQL", "stored, with indexes") == pytest.approx(5_000_000 * 250 + 4_000_000 * 300)
    assert value(answer, "PostgreSQL", "write-ahead log") == pytest.approx(1_800_000)
    assert value(answer, "PostgreSQL", "write-ahead log after a checkpoint") == pytest.approx(8_000_000)
    assert value(answer, "PostgreSQL", "CPU") == pytest.approx(0.16)


def test_redis_holds_petitions_and_their_minutes_not_signatures() -> None:
    answer = computed(petitions=10, days=1.0)
    assert value(answer, "Redis", "memory") == pytest.approx(10 * 5_000 + 10 * 1_440 * 50)
    assert value(answer, "Redis", "append-only file") == pytest.approx(1_600 * 12)
    assert value(answer, "Redis", "CPU") == pytest.approx(0.008)
    few = computed(signatures=3, days=1.0)
    assert value(few, "Redis", "memory") == pytest.approx(5_000 + 3 * 50)


def test_viewers_by_hand() -> None:
    answer = computed(viewers=10_000)
    assert value(answer, "viewers", "updates to each") == 4
    assert value(answer, "viewers", "memory in tally") == 10_000 * 40 * 1024
    assert value(answer, "viewers", "CPU in tally") == pytest.approx(2)  # 40,000 updates a second of 50 µs
    assert value(answer, "viewers", "sent") == pytest.approx(4_800_000)
    assert value(answer, "viewers", "that one process carries") == 2_500
    # 2 cores for streams, 0.016 for the count; the counting instance has 0.484 of its half core for viewers: 4.13 of these.
    assert value(answer, "tally", "instances") == 5
    assert value(answer, "tally", "CPU") == pytest.approx(2.016)
    assert value(answer, "tally", "memory") == 5 * 80 * 1024 * 1024 + 10_000 * 40 * 1024
    # Each of the five reads the snapshots.
    assert value(answer, "Kafka", "sent to followers and services") == pytest.approx(
        2 * 1_184_000 + 1_120_000 + 5 * 4_000
    )


def test_streams_are_bounded_by_the_setting_too() -> None:
    answer = computed(costs(stream_cpu=0.1), viewers=MAX_STREAMS + 1)
    assert value(answer, "viewers", "that one process carries") == MAX_STREAMS
    assert value(answer, "tally", "instances") == 2


def test_there_are_no_more_updates_than_changes() -> None:
    answer = computed(rate=1.0, signatures=100, viewers=1)
    assert value(answer, "viewers", "updates to each") == pytest.approx(0.8)
    assert value(computed(viewers=1, snapshot_interval_ms=1_000), "viewers", "updates to each") == 1


def test_without_viewers_the_costs_of_streams_do_not_matter() -> None:
    answer = computed(costs(stream_rss=None, stream_cpu=None, stream_bytes=None), viewers=0)
    assert answer.not_measured == []
    assert value(answer, "tally", "instances") == 1
    assert not [line for line in answer.lines if line.group == "viewers"]


def test_what_saturates_first() -> None:
    answer = computed()
    # Half a core: PostgreSQL 6,250/s a core, 50,000/s with 8; tally 10 µs for 0.8 facts = 62,500/s; Redis 125,000/s.
    most = {each.part: each.most and each.most.value for each in answer.ceilings}
    assert most == {
        "ingest": None,
        "verify": None,
        "Kafka": None,
        "PostgreSQL": pytest.approx(50_000),
        "tally, one petition": pytest.approx(62_500),
        "Redis, one petition": pytest.approx(125_000),
    }
    assert answer.first is not None
    assert answer.first.part == "PostgreSQL"
    assert answer.first_core is not None
    assert answer.first_core.part == "ingest"
    assert "PostgreSQL, at 50,000 submissions a second, which is enough here" in verdict(answer)

    larger = computed(postgres_cores=16, rate=100_000.0)
    assert larger.first is not None
    assert larger.first.part == "tally, one petition"
    assert "62,500 submissions a second, which is NOT enough here" in verdict(larger)


def test_a_petition_beyond_its_one_writer_still_gets_numbers_and_the_verdict_says_so() -> None:
    answer = computed(rate=100_000.0, viewers=10_000)
    # Counting 0.8 cores, streams 2: more than half a core for the one that counts, whatever the number.
    assert value(answer, "tally", "instances") == 6
    assert "NOT enough" in verdict(answer)


def test_what_is_not_measured_is_named_and_not_computed() -> None:
    answer = computed(costs(tally_cpu=None, rejected_bytes=None), viewers=100)
    assert answer.of("tally", "instances").value is None
    assert answer.of("tally", "instances").not_measured == ("tally_cpu",)
    assert answer.of("Kafka", "produced").not_measured == ("rejected_bytes",)
    assert answer.of("Kafka", "sent to followers and services").not_measured == ("rejected_bytes", "tally_cpu")
    assert value(answer, "ingest", "instances") == 1
    assert answer.first is None
    assert answer.first_core is None
    assert "cannot be said: tally_cpu not measured" in verdict(answer)
    assert answer.not_measured == ["tally_cpu", "rejected_bytes"]
    # Nothing is refused, so what a refusal costs does not matter.
    assert computed(costs(rejected_bytes=None), duplicates=0.0).not_measured == []


def test_more_rows_than_were_measured_are_said_to_be_an_assumption() -> None:
    assert computed().remarks == ()
    (remark,) = computed(signatures=4_000_001).remarks
    assert "measured with 5,000,000 signatures" in remark


@pytest.mark.parametrize(
    ("field", "wrong", "rule"),
    [
        ("rate", 0.0, "above 0"),
        ("rate", -1.0, "above 0"),
        ("rate", math.nan, "a number"),
        ("rate", math.inf, "a number"),
        ("signatures", 0, "at least 1"),
        ("viewers", -1, "at least 0"),
        ("duplicates", 1.0, "below 1"),
        ("duplicates", -0.1, "at least 0"),
        ("utilisation", 0.0, "above 0"),
        ("utilisation", 1.1, "at most 1"),
        ("replication", 0, "at least 1"),
        ("petitions", 0, "at least 1"),
        ("days", 0.0, "above 0"),
        ("snapshot_interval_ms", 49, "at least 50"),
        ("postgres_cores", 0, "at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(field: str, wrong: float, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be .*{rule}"):
        computed(None, **{field: wrong})


# The file of costs ----------------------------------------------------------------------------------------------------


def changed(tmp_path: Path, name: str, **entries: object) -> Path:
    """A good file with one cost changed; an entry of ... is left out."""
    document = json.loads(as_json(costs()))
    document["costs"][name] = {k: v for k, v in (document["costs"][name] | entries).items() if v is not ...}
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"value": 0}, "greater than 0"),
        ({"value": -3.5}, "greater than 0"),
        ({"value": "43"}, "valid number"),
        ({"value": ...}, "Field required"),
        ({"unit": "ms/submission"}, "verify_cpu is in µs/submission, not in ms/submission"),
        ({"date": None}, "value and date"),
        ({"value": None}, "value and date"),
        ({"source": ...}, "Field required"),
        ({"guessed": True}, "Extra inputs"),
    ],
)
def test_a_cost_that_is_not_whole_is_refused(tmp_path: Path, entries: dict[str, object], says: str) -> None:
    with pytest.raises(CostsError, match=says):
        read_costs(changed(tmp_path, "verify_cpu", **entries))


def test_a_file_that_is_missing_or_no_json_or_not_complete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CostsError, match="No such file"):
        read_costs(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(CostsError, match="Invalid JSON"):
        read_costs(broken)
    document = json.loads(as_json(costs()))
    del document["costs"]["tally_cpu"]
    broken.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CostsError, match=r"missing .*tally_cpu"):
        read_costs(broken)
    document["costs"]["tea"] = document["costs"]["tally_cpu"] = document["costs"]["verify_cpu"]
    broken.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CostsError, match="no such cost: tea"):
        read_costs(broken)


def test_the_file_of_the_source_is_whole_and_written_as_the_script_writes_it() -> None:
    assert as_json(read_costs(COSTS_FILE)) == COSTS_FILE.read_text(encoding="utf-8")


# The command and the page ---------------------------------------------------------------------------------------------


def called(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["capacity", *arguments], env={"COLUMNS": "200"})


def test_the_command_answers_in_json(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(as_json(costs(wal_bytes=None)), encoding="utf-8")
    result = called("--rate", "2000", "--signatures", "6000000", "--viewers", "100", "--costs", str(path), "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["demand"]["rate"] == 2000
    assert said["demand"]["viewers"] == 100
    assert said["saturates_first"] == "PostgreSQL"
    assert said["not_measured"] == ["wal_bytes"]
    (wal,) = [line for line in said["lines"] if line["name"] == "write-ahead log"]
    assert wal == {
        "group": "PostgreSQL",
        "name": "write-ahead log",
        "value": None,
        "unit": "B/s",
        "not_measured": ["wal_bytes"],
    }


def test_the_command_says_what_has_not_been_measured(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(as_json(nothing_measured()), encoding="utf-8")
    result = called("--rate", "2000", "--signatures", "6000000", "--viewers", "100000", "--costs", str(path))
    assert result.exit_code == 0, result.output
    assert "not measured: ingest_cpu" in result.stdout
    assert "What saturates first cannot be said" in result.stdout
    assert "Not measured yet, so not computed from: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--rate", "0", "--signatures", "1"), "--rate must be above 0"),
        (("--rate", "1", "--signatures", "1", "--snapshot-interval-ms", "1"), "--snapshot-interval-ms must be"),
        (("--rate", "1", "--signatures", "1", "--costs", "/nowhere.json"), "/nowhere.json"),
        (("--rate", "many", "--signatures", "1"), "--rate"),
        (("--rate", "1"), "--signatures"),
    ],
)
def test_bad_input_ends_with_code_2_and_says_what(arguments: tuple[str, ...], says: str) -> None:
    result = called(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_the_command_assumes_what_the_arithmetic_assumes() -> None:
    options = {name: parameter.default for name, parameter in signature(command).parameters.items()}
    for field in fields(Demand):
        if field.name not in {"rate", "signatures"}:
            assert options[field.name] == field.default, field.name
    assert Demand(rate=1, signatures=1).snapshot_interval_ms == SNAPSHOT_INTERVAL_MS == 250


def test_the_page_has_no_number_that_nobody_measured() -> None:
    tables = page_tables(nothing_measured())
    assert "| ingest | CPU | not measured | not measured | not measured | not measured |" in tables
    assert "cannot be said" in tables
    assert page_costs(nothing_measured()).count("not measured") == len(COSTS)
    assert "| `verify_cpu` |" in page_costs(costs())
    assert "| 50 µs/submission | `drain` | 2026-01-02" in page_costs(costs())
    assert "not measured" not in page_tables(costs())


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.0, "cores", "0 cores"),
        (0.0164, "cores", "0.016 cores"),
        (2.04, "cores", "2.0 cores"),
        (13.0, "", "13"),
        (5_000_000.0, "", "5,000,000"),
        (999.0, "B/s", "999 B/s"),
        (1_184_000.0, "B/s", "1.2 MB/s"),
        (8.85e9, "B", "8.8 GB"),
        (4.2e20, "B", "420,000 PB"),
        (1_536.0, "B memory", "1.5 KiB"),
        (80 * 1024.0 * 1024, "B memory", "80 MiB"),
        (4.0, "/s", "4.0/s"),
    ],
)
def test_numbers_for_people(number: float, unit: str, text: str) -> None:
    assert amount(number, unit) == text
