"""Measured costs: the file from which `groundswell capacity` computes, its schema and its validation.

The file is JSON, written by ``python -m tests.bench.results.costs`` from the results of `groundswell bench`:

    {"machine": {…} or null,
     "costs": {"verify_cpu": {"value": 43.2, "unit": "µs/submission", "source": "drain", "date": "2026-11-22",
                              "commit": "1a2b3c4"}, …}}

It names every cost of `COSTS`, in its unit. A cost that was not measured yet has null for value, date and commit; values must
not be guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT: Final = Path(__file__).resolve().parents[2]
COSTS_FILE: Final = ROOT / "docs" / "bench" / "costs.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of cost.

    Attributes:
        unit: unit of the value; a *submission* was answered with 202 by ingest, a *fact* is a submission that counts.
        source: the benchmark scenario that measures it.
        what: description.
    """

    unit: str
    source: str
    what: str


COSTS: Final[Mapping[str, Cost]] = {
    "ingest_cpu": Cost("µs/submission", "accept", "CPU of ingest: read the request, admit it, publish it, answer"),
    "verify_cpu": Cost("µs/submission", "drain", "CPU of verify: decode, decide, write to PostgreSQL, publish"),
    "tally_cpu": Cost("µs/fact", "tally", "CPU of tally: decode, group, apply in Redis"),
    "kafka_cpu": Cost("µs/submission", "road", "CPU of one broker that keeps the only copy, all topics, at 1,000/s"),
    "postgres_cpu": Cost("µs/submission", "growth", "CPU of PostgreSQL, with the most rows that were tried"),
    "postgres_rows": Cost("rows", "growth", "signatures in PostgreSQL when its CPU was measured"),
    "redis_cpu": Cost("µs/fact", "tally", "CPU of Redis (Valkey)"),
    "ingest_rss": Cost("MB", "accept", "memory of an ingest process, at most"),
    "verify_rss": Cost("MB", "drain", "memory of a verify process, at most"),
    "tally_rss": Cost("MB", "drain", "memory of a tally process without live streams, at most"),
    "notify_rss": Cost("MB", "notify", "memory of a notify process, at most"),
    "submitted_bytes": Cost(
        "B/submission", "sizes", "a record of signatures.submitted.v1 on disk, compressed, one copy"
    ),
    "verified_bytes": Cost("B/fact", "sizes", "a record of signatures.verified.v1 on disk, compressed, one copy"),
    "rejected_bytes": Cost("B/record", "sizes", "a record of signatures.rejected.v1 on disk, compressed, one copy"),
    "snapshot_bytes": Cost("B/snapshot", "sizes", "a record of tallies.updated.v1 on disk, compressed, one copy"),
    "signature_row_bytes": Cost("B/row", "sizes", "a row of the table signatures and its entries in all indexes"),
    "ledger_row_bytes": Cost("B/row", "sizes", "a row of the table ledger and its entries in all indexes"),
    "wal_bytes": Cost("B/submission", "drain", "PostgreSQL's write-ahead log"),
    "wal_bytes_after_checkpoint": Cost(
        "B/submission",
        "growth",
        "the same just after a checkpoint, when each page is written whole once, with the most rows",
    ),
    "redis_petition_bytes": Cost("B/petition", "sizes", "a petition in Redis: count, fences, countries, milestones"),
    "redis_minute_bytes": Cost("B/minute", "sizes", "one minute of a petition in Redis"),
    "redis_aof_bytes": Cost("B/fact", "tally", "Redis's append-only file"),
    "stream_rss": Cost("KB/viewer", "read", "memory of a live stream (server-sent events) in tally"),
    "stream_cpu": Cost("µs/update", "read", "CPU of tally for one update to one viewer"),
    "stream_bytes": Cost("B/update", "sizes", "one update on the wire to one viewer"),
}
"""Every cost by name. MB and KB are 1,048,576 and 1,024 bytes, as operating systems count memory."""


class CostsError(Exception):
    """The file of costs is missing or invalid; the message says what to do."""


class MeasuredCost(BaseModel):
    """One cost in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | None = Field(gt=0, allow_inf_nan=False, strict=True)
    unit: str
    source: str
    date: date | None
    commit: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> MeasuredCost:
        if (self.value is None) != (self.date is None):
            raise ValueError("value and date are both there, or both null")
        return self


class MeasuredCosts(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: dict[str, Any] | None
    costs: dict[str, MeasuredCost]

    @model_validator(mode="after")
    def _names_every_cost_in_its_unit(self) -> MeasuredCosts:
        if missing := [name for name in COSTS if name not in self.costs]:
            raise ValueError(f"these costs are missing (null, if not measured): {', '.join(missing)}")
        if unknown := [name for name in self.costs if name not in COSTS]:
            raise ValueError(f"no such cost: {', '.join(unknown)}")
        for name, cost in self.costs.items():
            if cost.unit != COSTS[name].unit:
                raise ValueError(f"{name} is in {COSTS[name].unit}, not in {cost.unit}")
        return self

    def value(self, name: str) -> float | None:
        """Return the value of a cost of `COSTS`, or None if it was not measured."""
        return self.costs[name].value

    @property
    def not_measured(self) -> list[str]:
        """Return the names of the costs without a value, in the order of `COSTS`."""
        return [name for name in COSTS if self.value(name) is None]


def nothing_measured() -> MeasuredCosts:
    """Return the content of the file before the first measurement."""
    return MeasuredCosts(
        machine=None,
        costs={
            name: MeasuredCost(value=None, unit=cost.unit, source=cost.source, date=None)
            for name, cost in COSTS.items()
        },
    )


def read_costs(path: Path = COSTS_FILE) -> MeasuredCosts:
    """Read a file of costs.

    Raises:
        CostsError: it is missing, is not JSON, or is invalid.
    """
    try:
        return MeasuredCosts.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CostsError(
            f"{path}: {error.strerror}. Name a file of measured costs with --costs; a checkout of the source has"
            " docs/bench/costs.json"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CostsError(f"{path}: {f'{where}: ' if where else ''}{first['msg']}") from None


def as_json(costs: MeasuredCosts) -> str:
    """Return the text of the file, in the order of `COSTS`."""
    body = costs.model_dump(mode="json")
    body["costs"] = {name: body["costs"][name] for name in COSTS}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
