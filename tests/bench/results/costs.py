"""``python -m tests.bench.results.costs``: the costs that `groundswell capacity` computes from, out of the benchmark's results.

A cost is a figure of the benchmark, unchanged. Costs whose figure is not in the results are kept if they were measured on
the same machine; else they are null.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from deploy.capacity.costs import COSTS, COSTS_FILE, MeasuredCost, MeasuredCosts, as_json, nothing_measured, read_costs
from deploy.performance import RESULTS_FILE

FIGURES: Final[Mapping[str, str]] = {
    "ingest_cpu": "accept.cpu_floor.spread.full",
    "verify_cpu": "drain.cpu.verify",
    "tally_cpu": "tally.cpu.hot",
    "kafka_cpu": "road.cpu.kafka",
    "postgres_cpu": "growth.cpu.postgres.*",
    "redis_cpu": "tally.cpu.valkey",
    "ingest_rss": "accept.rss",
    "verify_rss": "drain.memory.verify",
    "tally_rss": "drain.memory.tally",
    "notify_rss": "notify.memory",
    "submitted_bytes": "sizes.kafka.submitted",
    "verified_bytes": "sizes.kafka.verified",
    "rejected_bytes": "sizes.kafka.rejected",
    "snapshot_bytes": "sizes.kafka.tallies",
    "signature_row_bytes": "sizes.postgres.signatures",
    "ledger_row_bytes": "sizes.postgres.ledger",
    "wal_bytes": "drain.bytes.postgres",
    "wal_bytes_after_checkpoint": "growth.bytes.postgres.*",
    "redis_petition_bytes": "sizes.redis.petition",
    "redis_minute_bytes": "sizes.redis.minute",
    "redis_aof_bytes": "tally.bytes.redis",
    "stream_rss": "read.sse_memory.*",
    "stream_cpu": "read.sse_cpu.*",
    "stream_bytes": "sizes.stream.update",
}
"""The figure of each cost; ``*`` stands for a number, of which the largest is taken."""

ROWS: Final = "growth.cpu.postgres.*"
"""The largest number of this is the cost `postgres_rows`."""

_UNITS: Final[Mapping[str, frozenset[str]]] = {
    "µs": frozenset({"µs"}),
    "B": frozenset({"B", "bytes", "bytes/signature", "bytes/fact"}),
    "MB": frozenset({"MB"}),
    "KB": frozenset({"KB"}),
}
"""The benchmark's name for the first part of a cost's unit."""


class WrongUnit(ValueError):
    """A figure is not in the unit of its cost: it would be wrong by a factor."""


def taken_over(results: Mapping[str, Any], day: date, before: MeasuredCosts) -> MeasuredCosts:
    """The costs of `before`, updated from `results`.

    Raises:
        WrongUnit: a figure has another unit than its cost.
    """
    machine, commit = results["machine"], results["commit"]
    same = before.machine is not None and before.machine.get("processor") == machine.get("processor")
    kept = (before if same else nothing_measured()).costs
    figures = {figure["name"]: figure for figure in results["figures"]}
    costs = {}
    for name, cost in COSTS.items():
        value = _rows(figures) if name == "postgres_rows" else _value(figures, name)
        if value is None or value <= 0:
            costs[name] = kept[name].model_copy(update={"unit": cost.unit, "source": cost.source})
        else:
            costs[name] = MeasuredCost(value=value, unit=cost.unit, source=cost.source, date=day, commit=commit)
    return MeasuredCosts(machine=machine, costs=costs)


def _value(figures: Mapping[str, Mapping[str, Any]], cost: str) -> float | None:
    found = _largest(figures, FIGURES[cost])
    if found is None:
        return None
    figure = figures[found]
    unit = COSTS[cost].unit.partition("/")[0]
    if figure["unit"] not in _UNITS[unit]:
        raise WrongUnit(f"{found} is in {figure['unit']}, and the cost {cost} in {COSTS[cost].unit}")
    return float(figure["value"])


def _rows(figures: Mapping[str, Mapping[str, Any]]) -> float | None:
    found = _largest(figures, ROWS)
    return None if found is None else float(found.rpartition(".")[2])


def _largest(figures: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """The figure of that name; of several that ``*`` stands for, that of the largest number."""
    if not name.endswith("*"):
        return name if name in figures else None
    pattern = re.compile(re.escape(name[:-1]) + r"(\d+)")
    numbered = {int(match[1]): found for found in figures if (match := pattern.fullmatch(found))}
    return numbered[max(numbered)] if numbered else None


def main() -> int:
    """Read the results, write the costs, and say which are still missing."""
    parser = ArgumentParser(
        prog="python -m tests.bench.results.costs", description="Measured costs for groundswell capacity."
    )
    parser.add_argument("--results", type=Path, default=RESULTS_FILE, help="what groundswell bench --json has written")
    parser.add_argument("--costs", type=Path, default=COSTS_FILE, help="the file to write")
    parser.add_argument("--date", type=date.fromisoformat, help="when it was measured; the file's own, if not said")
    arguments = parser.parse_args()
    try:
        results = json.loads(arguments.results.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(
            f"{arguments.results}: {error.strerror}; make it with: make bench ARGS='--json {arguments.results}'"
        )
    day = arguments.date or datetime.fromtimestamp(arguments.results.stat().st_mtime, UTC).date()
    before = read_costs(arguments.costs) if arguments.costs.exists() else nothing_measured()
    costs = taken_over(results, day, before)
    arguments.costs.write_text(as_json(costs), encoding="utf-8")
    if costs.not_measured:
        print(f"not measured: {', '.join(costs.not_measured)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
