"""PostgreSQL's plans of verify's statements: EXPLAIN (ANALYZE, BUFFERS) of one batch, which is rolled back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from services.verify.store import ledger, signing
from shared.contract.identity import new_signature_id
from shared.contract.topics import DEFAULT_PARTITIONS

BATCH: Final = 1_000
"""Number of signatures in the explained batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The cost of one statement for the batch.

    Attributes:
        milliseconds: in PostgreSQL, with planning, without the network.
        blocks: of 8 KiB, found in memory or read, counted at each access.
        text: the whole plan, as JSON.
    """

    milliseconds: float
    blocks: int
    text: str


async def explained(url: str, petition_id: str) -> dict[str, Plan]:
    """The plans of verify's statements for a batch of new signatures of one petition, by purpose.

    Each statement runs twice, and the second run is reported: caches are as in the middle of a surge.
    """
    connection = await asyncpg.connect(url)
    try:
        statements = {
            "insert_signatures": (signing.INSERT_SIGNATURES, _signatures(petition_id)),
            "look_up_signatures": (signing.STORED_SIGNATURES, await _known(connection)),
            "last_positions": (ledger.LAST_POSITIONS, [list(range(DEFAULT_PARTITIONS))]),
            "append_ledger": (ledger.APPEND_LEDGER, await _facts(connection, petition_id)),
        }
        return {
            name: [await _explain(connection, sql, arguments) for _ in range(2)][-1]
            for name, (sql, arguments) in statements.items()
        }
    finally:
        await connection.close()


def write(plans: dict[str, Plan], file: Path) -> None:
    """Save the complete plans for reading."""
    file.write_text("".join(f"{name}\n{plan.text}\n\n" for name, plan in plans.items()), encoding="utf-8")


async def _explain(connection: Any, sql: str, arguments: list[Any]) -> Plan:
    transaction = connection.transaction()
    await transaction.start()
    try:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
    finally:
        await transaction.rollback()
    (said,) = json.loads(text)
    plan = said["Plan"]
    blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return Plan(said["Planning Time"] + said["Execution Time"], blocks, text)


def _signatures(petition_id: str) -> list[Any]:
    now = datetime.now(UTC)
    return [
        [new_signature_id(b"a pepper") for _ in range(BATCH)],
        [UUID(bytes=os.urandom(16)) for _ in range(BATCH)],
        [petition_id] * BATCH,
        ["verified"] * BATCH,
        [None] * BATCH,
        ["NL"] * BATCH,
        [now] * BATCH,
    ]


async def _known(connection: Any) -> list[Any]:
    """As many stored signatures, from all over the table; it has just been analysed."""
    stored = await connection.fetchval("SELECT reltuples FROM pg_class WHERE relname = 'signatures'")
    percent = min(100.0, 100.0 * 3 * BATCH / stored)
    sample = "SELECT signature_id FROM signatures TABLESAMPLE BERNOULLI ($1) LIMIT $2"
    rows = await connection.fetch(sample, percent, BATCH)
    return [[row["signature_id"] for row in rows]]


async def _facts(connection: Any, petition_id: str) -> list[Any]:
    rows = await connection.fetch(ledger.LAST_POSITIONS, list(range(DEFAULT_PARTITIONS)))
    last = {row["lane"]: row["position"] for row in rows}
    now = datetime.now(UTC)
    lanes = sorted(number % DEFAULT_PARTITIONS for number in range(BATCH))
    positions = []
    for lane in lanes:
        last[lane] += 1
        positions.append(last[lane])
    ids = [new_signature_id(b"a pepper") for _ in range(BATCH)]
    return [
        *(lanes, positions, ids, [petition_id] * BATCH, ids, ["verified"] * BATCH),
        *([1] * BATCH, ["NL"] * BATCH, [now] * BATCH, [now] * BATCH),
    ]
