"""SQL of the ledger: appending changes of counts, each once, and finding those that were appended before."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.verify.deciding.outcome import LedgerRow
from services.verify.deciding.rules import Change, in_lane_order

# A join against the lanes, not max() with GROUP BY: each lane takes one descent of the primary key, however long it is.
# 2^52 bounds the positions as in 0007_ledger_bounds.sql: a row beyond was written by hand, and positions do not go on there.
LAST_POSITIONS = """
SELECT wanted.lane,
       coalesce((SELECT position FROM ledger
                 WHERE ledger.lane = wanted.lane AND position BETWEEN 1 AND 4503599627370496
                 ORDER BY position DESC LIMIT 1), 0) AS position
FROM unnest($1::int[]) AS wanted (lane)
"""

APPEND_LEDGER = """
INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at)
SELECT * FROM unnest($1::int[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::smallint[], $8::text[],
                     $9::timestamptz[], $10::timestamptz[])
"""

_LEDGER_OF_EVENTS = """
SELECT lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at
FROM ledger WHERE event_id = ANY($1::uuid[])
"""


async def append(connection: Any, changes: list[Change]) -> list[LedgerRow]:
    """Append changes, each at the next position of its lane.

    Raises:
        asyncpg.UniqueViolationError: a position or event is taken already.
    """
    if not changes:
        return []
    ordered = in_lane_order(changes)
    lanes = sorted({change.submission.lane for change in ordered})
    last = {row["lane"]: row["position"] for row in await connection.fetch(LAST_POSITIONS, lanes)}
    rows = []
    for change in ordered:
        lane = change.submission.lane
        last[lane] += 1
        rows.append(
            LedgerRow(
                lane,
                last[lane],
                change.submission.event_id,
                change.petition_id,
                change.signature_id,
                change.kind,
                change.delta,
                change.country,
                change.signed_at,
                change.occurred_at,
            )
        )
    await connection.execute(APPEND_LEDGER, *(list(column) for column in zip(*rows, strict=True)))
    return rows


async def replayed(connection: Any, event_ids: set[UUID]) -> list[LedgerRow]:
    """The ledger's rows of these events."""
    if not event_ids:
        return []
    return [LedgerRow(*row) for row in await connection.fetch(_LEDGER_OF_EVENTS, list(event_ids))]
