"""All SQL of tally: reads verify's ledger, and keeps tally's milestones, epochs and Redis witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.tally.counting.tally import Reached, TallyState
from shared.postgres import Database

# verify gives no position beyond 2**52, and a fence there would drop every later fact of its lane.
_MOST_POSITION = "4503599627370496"

# Walks the index from petition to petition instead of reading the whole ledger.
_PETITIONS = """
WITH RECURSIVE walk AS (
    (SELECT petition_id FROM ledger ORDER BY petition_id LIMIT 1)
    UNION ALL
    SELECT (SELECT petition_id FROM ledger WHERE ledger.petition_id > walk.petition_id ORDER BY petition_id LIMIT 1)
    FROM walk WHERE walk.petition_id IS NOT NULL
)
SELECT petition_id FROM walk WHERE petition_id IS NOT NULL
"""

# verify never writes an infinite time: such a row was edited by hand, and counts in minute 0, which is never shown.
_MINUTE = "CASE WHEN isfinite(signed_at) THEN floor(extract(epoch FROM signed_at) / 60)::bigint ELSE 0 END"

# Positions per lane and all break-downs in one statement, and so from one snapshot of the ledger.
_STATE = f"""
SELECT lane, country, {_MINUTE} AS minute,
       sum(delta)::bigint AS standing, count(*)::bigint AS changes,
       max(position) FILTER (WHERE position <= {_MOST_POSITION}) AS position
FROM ledger WHERE petition_id = $1
GROUP BY lane, country, minute
"""  # noqa: S608  our own text

# In the order of the changes' own times; with equal times, by lane and position.
_PEAK = """
SELECT coalesce(max(running), 0)::bigint
FROM (SELECT sum(delta) OVER (ORDER BY occurred_at, lane, position) AS running FROM ledger WHERE petition_id = $1) AS course
"""

_EVER_COUNTED = "SELECT count(*) FILTER (WHERE delta > 0), sum(delta)::bigint FROM ledger WHERE petition_id = $1"

# As _STATE, but only what a tally with these fences has counted.
_STATE_AT = f"""
SELECT ledger.lane, country, {_MINUTE} AS minute,
       sum(delta)::bigint AS standing, count(*)::bigint AS changes, max(ledger.position) AS position
FROM ledger JOIN unnest($2::int[], $3::bigint[]) AS fence (lane, position) ON ledger.lane = fence.lane
WHERE petition_id = $1 AND ledger.position <= fence.position
GROUP BY ledger.lane, country, minute
"""  # noqa: S608  our own text

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

_HAS_OTHER = """
SELECT EXISTS (
    SELECT FROM ledger LEFT JOIN unnest($2::int[], $3::bigint[]) AS first (lane, position) ON ledger.lane = first.lane
    WHERE petition_id = $1 AND (first.lane IS NULL OR ledger.position < first.position)
)
"""

# One descent of the primary key for each lane, however long it is.
_LANE_ENDS = f"""
SELECT wanted.lane, coalesce((SELECT position FROM ledger WHERE ledger.lane = wanted.lane AND position <= {_MOST_POSITION}
                              ORDER BY position DESC LIMIT 1), 0) AS position
FROM unnest($1::int[]) AS wanted (lane)
"""  # noqa: S608  our own text

_NOT_THERE = """
SELECT petition_id, lane, position FROM unnest($1::text[], $2::int[], $3::bigint[]) AS fence (petition_id, lane, position)
WHERE NOT EXISTS (
    SELECT FROM ledger
    WHERE ledger.lane = fence.lane AND ledger.position = fence.position AND ledger.petition_id = fence.petition_id
)
"""

_EPOCH = "SELECT epoch FROM tally_epochs WHERE petition_id = $1"

# By PostgreSQL's clock, because this process's own may be wrong; readers bound an epoch by the brokers' clock.
_RAISE_EPOCH = """
INSERT INTO tally_epochs (petition_id, epoch)
VALUES ($1, greatest($2::bigint + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint))
ON CONFLICT (petition_id) DO UPDATE SET epoch = greatest(excluded.epoch, tally_epochs.epoch + 1), raised_at = now()
RETURNING epoch
"""

_RAISED_SINCE = "SELECT petition_id, raised_at FROM tally_epochs WHERE raised_at > $1"

_RECORDED = "SELECT threshold FROM milestones WHERE petition_id = $1"

_IS_ANNOUNCED = """
SELECT EXISTS (SELECT FROM milestones WHERE petition_id = $1 AND threshold = $2 AND announced_at IS NOT NULL)
"""

# The time comes from Redis. If its clock is far off, the event would be refused by readers that check times.
_RECORD_MILESTONE = """
INSERT INTO milestones (petition_id, threshold, count, revision, reached_at)
VALUES ($1, $2, $3, $4, CASE WHEN $5::timestamptz BETWEEN '2000-01-01' AND now() THEN $5 ELSE now() END)
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
    """Reads the ledger, and reads and writes milestones, epochs and witnesses in PostgreSQL.

    Raises:
        asyncpg.PostgresError, OSError: from every method; PostgreSQL is away.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def petitions(self) -> list[str]:
        """Ids of all petitions with rows in the ledger."""
        return [row["petition_id"] for row in await self._database.pool.fetch(_PETITIONS)]

    async def state(self, petition_id: str) -> TallyState:
        """The tally according to one snapshot of the ledger; its fences are the last positions of that snapshot."""
        state = _state(await self._database.pool.fetch(_STATE, petition_id, timeout=300))
        epoch = await self.epoch(petition_id)
        # Where no signature was ever revoked, the count has never been higher than now.
        peak = state.count if state.revision == state.count else await self.peak(petition_id)
        return replace(state, epoch=epoch, peak=peak)

    async def epoch(self, petition_id: str) -> int:
        """The petition's epoch; 0 if no snapshot was ever taken back."""
        return await self._database.pool.fetchval(_EPOCH, petition_id) or 0

    async def peak(self, petition_id: str) -> int:
        """The highest count that the petition ever had, in the order of its changes' times."""
        peak: int = await self._database.pool.fetchval(_PEAK, petition_id, timeout=300)
        return peak

    async def ever_counted(self, petition_id: str) -> tuple[int, int]:
        """The number of the petition's signatures that ever counted, and of those that still do."""
        ever, now = await self._database.pool.fetchrow(_EVER_COUNTED, petition_id, timeout=300) or (0, 0)
        return ever, now or 0

    async def state_at(self, petition_id: str, fences: Mapping[int, int]) -> TallyState:
        """The tally that the rows at or below these fences give: exact also while facts are under way."""
        lanes, positions = list(fences), list(fences.values())
        return _state(await self._database.pool.fetch(_STATE_AT, petition_id, lanes, positions, timeout=300))

    async def beyond(self, petition_id: str, fences: Mapping[int, int]) -> int:
        """The number of changes in the ledger beyond these fences: those that are not counted yet."""
        lanes, positions = list(fences), list(fences.values())
        number: int = await self._database.pool.fetchval(_BEYOND, petition_id, lanes, positions, timeout=300)
        return number

    async def has_earlier(self, petition_id: str, first: Mapping[int, int]) -> bool:
        """Whether one of these lanes has changes of the petition before its given position."""
        lanes, positions = list(first), list(first.values())
        found: bool = await self._database.pool.fetchval(_HAS_EARLIER, petition_id, lanes, positions, timeout=300)
        return found

    async def has_other(self, petition_id: str, first: Mapping[int, int]) -> bool:
        """Whether the ledger has changes of the petition before the given positions of these lanes, or in other lanes."""
        lanes, positions = list(first), list(first.values())
        found: bool = await self._database.pool.fetchval(_HAS_OTHER, petition_id, lanes, positions, timeout=300)
        return found

    async def lane_ends(self, lanes: Sequence[int]) -> dict[int, int]:
        """The last position of each lane; 0 for an empty one."""
        rows = await self._database.pool.fetch(_LANE_ENDS, list(lanes))
        return {row["lane"]: row["position"] for row in rows}

    async def not_there(self, fences: Sequence[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
        """Those of the given (petition, lane, position) that are not in the ledger."""
        petitions, lanes, positions = zip(*fences, strict=True)
        rows = await self._database.pool.fetch(_NOT_THERE, list(petitions), list(lanes), list(positions))
        return {(row["petition_id"], row["lane"], row["position"]) for row in rows}

    async def raise_epoch(self, petition_id: str, *, above: int) -> int:
        """Begin a new epoch of the petition's snapshots, higher than `above`, and return it."""
        epoch: int = await self._database.pool.fetchval(_RAISE_EPOCH, petition_id, above)
        return epoch

    async def epochs_raised_since(self, moment: datetime) -> dict[str, datetime]:
        """Petitions whose epoch any process raised after `moment`, with the time of that."""
        rows = await self._database.pool.fetch(_RAISED_SINCE, moment)
        return {row["petition_id"]: row["raised_at"] for row in rows}

    async def recorded_milestones(self, petition_id: str) -> set[int]:
        """Thresholds that were recorded as reached."""
        return {row["threshold"] for row in await self._database.pool.fetch(_RECORDED, petition_id)}

    async def is_announced(self, petition_id: str, threshold: int) -> bool:
        """Whether the milestone has been announced."""
        found: bool = await self._database.pool.fetchval(_IS_ANNOUNCED, petition_id, threshold)
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
        """Milestones that were recorded and not announced, as after a crash in between."""
        return [Reached(*row) for row in await self._database.pool.fetch(_UNANNOUNCED)]

    async def mark_announced(self, reached: Reached) -> None:
        """Note that Kafka has acknowledged the milestone."""
        await self._database.pool.execute(_ANNOUNCED, reached.petition_id, reached.threshold)

    async def witnesses(self, partitions: Sequence[int]) -> dict[int, str]:
        """By partition, the identity of the Redis in which its counts were last right."""
        rows = await self._database.pool.fetch(_WITNESSES, list(partitions))
        return {row["partition"]: row["identity"] for row in rows}

    async def set_witness(self, partitions: Sequence[int], identity: str) -> None:
        """Record that the counts of these partitions are right in the Redis with this identity."""
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
        if row["position"] is not None:
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
