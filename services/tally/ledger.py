"""All SQL of tally: it reads verify's ledger, and keeps its own milestones and Redis witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.tally.store import Reached, TallyState
from shared.postgres import Database

# Walks the index from petition to petition instead of reading all of the ledger.
_PETITIONS = """
WITH RECURSIVE walk AS (
    (SELECT petition_id FROM ledger ORDER BY petition_id LIMIT 1)
    UNION ALL
    SELECT (SELECT petition_id FROM ledger WHERE ledger.petition_id > walk.petition_id ORDER BY petition_id LIMIT 1)
    FROM walk WHERE walk.petition_id IS NOT NULL
)
SELECT petition_id FROM walk WHERE petition_id IS NOT NULL
"""

# One pass, one snapshot: positions per lane, and the break-downs that the same rows give.
_STATE = """
SELECT lane, country, floor(extract(epoch FROM signed_at) / 60)::bigint AS minute,
       sum(delta)::bigint AS standing, count(*)::bigint AS changes, max(position) AS position
FROM ledger WHERE petition_id = $1
GROUP BY lane, country, minute
"""

# The same, but only what a tally with these fences has counted.
_STATE_AT = """
SELECT ledger.lane, country, floor(extract(epoch FROM signed_at) / 60)::bigint AS minute,
       sum(delta)::bigint AS standing, count(*)::bigint AS changes, max(ledger.position) AS position
FROM ledger JOIN unnest($2::int[], $3::bigint[]) AS fence (lane, position) ON ledger.lane = fence.lane
WHERE petition_id = $1 AND ledger.position <= fence.position
GROUP BY ledger.lane, country, minute
"""

_BEYOND = """
SELECT count(*)
FROM ledger LEFT JOIN unnest($2::int[], $3::bigint[]) AS fence (lane, position) ON ledger.lane = fence.lane
WHERE petition_id = $1 AND ledger.position > coalesce(fence.position, 0)
"""

_HAS_EARLIER = """
SELECT EXISTS (
    SELECT FROM unnest($2::int[], $3::bigint[]) AS first (lane, position)
    JOIN ledger ON ledger.petition_id = $1 AND ledger.lane = first.lane AND ledger.position < first.position
)
"""

_RECORD_MILESTONE = """
INSERT INTO milestones (petition_id, threshold, count, revision, reached_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (petition_id, threshold) DO NOTHING
"""

_MILESTONE = """
SELECT threshold, count, revision, reached_at, announced_at FROM milestones WHERE petition_id = $1 AND threshold = $2
"""

_UNANNOUNCED = "SELECT petition_id, threshold, count, revision, reached_at FROM milestones WHERE announced_at IS NULL"

_ANNOUNCED = (
    "UPDATE milestones SET announced_at = now() WHERE petition_id = $1 AND threshold = $2 AND announced_at IS NULL"
)

_WITNESSES = "SELECT partition, identity FROM redis_witness WHERE partition = ANY($1::int[])"

_SET_WITNESS = """
INSERT INTO redis_witness (partition, identity) SELECT partition, $2 FROM unnest($1::int[]) AS owned (partition)
ON CONFLICT (partition) DO UPDATE SET identity = excluded.identity, seen_at = now()
"""


class Ledger:
    """What PostgreSQL knows of counts and milestones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def petitions(self) -> list[str]:
        """Every petition that the ledger has a row of."""
        return [row["petition_id"] for row in await self._database.pool.fetch(_PETITIONS)]

    async def state(self, petition_id: str) -> TallyState:
        """What the tally should be, from one snapshot of the ledger; its fences are the snapshot's last positions."""
        return _state(await self._database.pool.fetch(_STATE, petition_id, timeout=300))

    async def state_at(self, petition_id: str, fences: Mapping[int, int]) -> TallyState:
        """What a tally with these fences should be: exact while facts are still under way."""
        lanes, positions = list(fences), list(fences.values())
        return _state(await self._database.pool.fetch(_STATE_AT, petition_id, lanes, positions, timeout=300))

    async def beyond(self, petition_id: str, fences: Mapping[int, int]) -> int:
        """How many changes the ledger has that a tally with these fences has not counted yet."""
        lanes, positions = list(fences), list(fences.values())
        number: int = await self._database.pool.fetchval(_BEYOND, petition_id, lanes, positions, timeout=300)
        return number

    async def has_earlier(self, petition_id: str, first: Mapping[int, int]) -> bool:
        """Whether the ledger has changes of the petition before the given position of one of these lanes."""
        lanes, positions = list(first), list(first.values())
        found: bool = await self._database.pool.fetchval(_HAS_EARLIER, petition_id, lanes, positions, timeout=300)
        return found

    async def record_milestone(self, reached: Reached) -> Reached | None:
        """Record a milestone, once ever.

        Returns:
            The milestone as first recorded, if it has not been announced; None if it has.
        """
        async with self._database.pool.acquire() as connection:
            await connection.execute(
                _RECORD_MILESTONE,
                reached.petition_id,
                reached.threshold,
                reached.count,
                reached.revision,
                reached.reached_at,
            )
            row = await connection.fetchrow(_MILESTONE, reached.petition_id, reached.threshold)
        assert row is not None
        if row["announced_at"] is not None:
            return None
        return Reached(reached.petition_id, row["threshold"], row["count"], row["revision"], row["reached_at"])

    async def unannounced(self) -> list[Reached]:
        """Milestones that were recorded and not announced: what a crash in between leaves."""
        return [Reached(*row) for row in await self._database.pool.fetch(_UNANNOUNCED)]

    async def mark_announced(self, reached: Reached) -> None:
        """Note that Kafka has acknowledged the milestone."""
        await self._database.pool.execute(_ANNOUNCED, reached.petition_id, reached.threshold)

    async def witnesses(self, partitions: Sequence[int]) -> dict[int, str]:
        """For each partition, the Redis that its counts were last known to be right in."""
        rows = await self._database.pool.fetch(_WITNESSES, list(partitions))
        return {row["partition"]: row["identity"] for row in rows}

    async def set_witness(self, partitions: Sequence[int], identity: str) -> None:
        """Note that the counts of these partitions are right in this Redis."""
        await self._database.pool.execute(_SET_WITNESS, list(partitions), identity)


def _state(rows: Sequence[Any]) -> TallyState:
    fences: dict[int, int] = {}
    countries: dict[str, int] = {}
    minutes: dict[int, int] = {}
    count = revision = 0
    for row in rows:
        standing = row["standing"]
        count += standing
        revision += row["changes"]
        fences[row["lane"]] = max(fences.get(row["lane"], 0), row["position"])
        countries[row["country"]] = countries.get(row["country"], 0) + standing
        minutes[row["minute"]] = minutes.get(row["minute"], 0) + standing
    return TallyState(
        count,
        revision,
        fences,
        {code: number for code, number in countries.items() if number},
        {minute: number for minute, number in minutes.items() if number},
    )
