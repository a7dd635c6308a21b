"""The state of a run's petitions in PostgreSQL, Redis and the public API, read directly, never through a proxy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import asyncpg

from services.tally.counting.audit import PetitionAudit, audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from shared import redis as shared_redis
from shared.postgres import Database
from tests.faults.notes import SACRIFICE

_TIMEOUT_SECONDS: Final = 60.0

_SIGNATURES: Final = (
    "SELECT signature_id::text, petition_id, signer_key::text, state, reason FROM signatures"
    " WHERE petition_id = ANY($1::text[])"
)
_LEDGER: Final = (
    "SELECT lane, position, event_id::text, petition_id, signature_id::text, delta, country FROM ledger"
    " WHERE petition_id = ANY($1::text[])"
)
_LANES: Final = "SELECT lane, count(*) AS rows, min(position) AS first, max(position) AS last FROM ledger GROUP BY lane"
_GAPS: Final = """
SELECT lane, before + 1 AS first, position - 1 AS last
FROM (SELECT lane, position, lag(position, 1, 0::bigint) OVER (PARTITION BY lane ORDER BY position) AS before FROM ledger) AS row
WHERE position > before + 1
"""
_SACRIFICED: Final = "SELECT lane, position FROM ledger WHERE starts_with(petition_id, $1)"
_MILESTONES: Final = (
    "SELECT petition_id, threshold, count, announced_at IS NOT NULL AS announced FROM milestones"
    " WHERE petition_id = ANY($1::text[])"
)
_DELIVERIES: Final = (
    "SELECT delivery_id::text, petition_id, threshold, target_id, email, state, folded_into::text AS folded_into,"
    " attempts, takeovers, last_reply FROM deliveries WHERE petition_id = ANY($1::text[])"
)
_WAITING: Final = "SELECT count(*) FROM milestones_waiting WHERE petition_id = ANY($1::text[])"
_STANDING: Final = (
    "SELECT petition_id, count(*) AS rows, coalesce(sum(delta), 0) AS standing FROM ledger"
    " WHERE petition_id = ANY($1::text[]) GROUP BY petition_id"
)
_NOT_IN_LEDGER: Final = """
SELECT seen.lane, seen.position FROM unnest($1::int[], $2::bigint[], $3::uuid[]) AS seen (lane, position, event_id)
LEFT JOIN ledger ON ledger.lane = seen.lane AND ledger.position = seen.position AND ledger.event_id = seen.event_id
WHERE ledger.event_id IS NULL LIMIT 20
"""


class StoredSignature(NamedTuple):
    """A row of ``signatures``."""

    signature_id: str
    petition_id: str
    signer_key: str
    state: str
    reason: str | None


class StoredChange(NamedTuple):
    """A row of the ledger."""

    lane: int
    position: int
    event_id: str
    petition_id: str
    signature_id: str
    delta: int
    country: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane of the ledger, over all runs."""

    rows: int
    first: int
    last: int
    gaps: tuple[tuple[int, int], ...] = ()
    """(first, last) of the gaps below the lane's last position."""


@dataclass(frozen=True, slots=True)
class StoredMilestone:
    """A row of ``milestones``."""

    petition_id: str
    threshold: int
    count: int
    announced: bool


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A row of ``deliveries``."""

    delivery_id: str
    petition_id: str
    threshold: int
    target_id: str
    email: str
    state: str
    folded_into: str | None
    attempts: int
    takeovers: int
    last_reply: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The state in PostgreSQL."""

    signatures: tuple[StoredSignature, ...]
    ledger: tuple[StoredChange, ...]
    lanes: Mapping[int, Lane]
    milestones: tuple[StoredMilestone, ...]
    deliveries: tuple[StoredDelivery, ...]
    waiting: int
    """Milestones that notify keeps for unknown petitions."""
    sacrificed: frozenset[tuple[int, int]] = frozenset()
    """(lane, position) of the rows of all sacrificial petitions."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of one petition."""

    rows: int
    standing: int


class Postgres:
    """Reads PostgreSQL, with a connection per query: it may be restarted between any two.

    Every query raises `asyncpg.PostgresError` or `OSError` while PostgreSQL does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    async def lanes(self) -> dict[int, Lane]:
        """Every lane of the ledger."""
        return _lanes(await self._fetch(_LANES), ())

    async def standing(self, petition_ids: Collection[str]) -> dict[str, Standing]:
        """The ledger's sum for each of these petitions."""
        found = {
            row["petition_id"]: Standing(row["rows"], row["standing"])
            for row in await self._fetch(_STANDING, list(petition_ids))
        }
        return {petition: found.get(petition, Standing(0, 0)) for petition in petition_ids}

    async def deliveries(self, petition_ids: Collection[str]) -> tuple[StoredDelivery, ...]:
        """The deliveries and their states."""
        return tuple(StoredDelivery(**dict(row)) for row in await self._fetch(_DELIVERIES, list(petition_ids)))

    async def not_in_ledger(self, facts: Mapping[tuple[int, int], str]) -> list[tuple[int, int]]:
        """Which of these facts, (lane, position) to event id, differ from the ledger; a few of them."""
        rows = await self._fetch(
            _NOT_IN_LEDGER, [lane for lane, _ in facts], [position for _, position in facts], list(facts.values())
        )
        return [(row["lane"], row["position"]) for row in rows]

    async def stored(self, petition_ids: Collection[str]) -> Stored:
        """Everything about these petitions, in one snapshot."""
        names = list(petition_ids)
        connection = await self._connect()
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                signatures = await connection.fetch(_SIGNATURES, names)
                ledger = await connection.fetch(_LEDGER, names)
                lanes = await connection.fetch(_LANES)
                gaps = await connection.fetch(_GAPS)
                sacrificed = await connection.fetch(_SACRIFICED, SACRIFICE)
                milestones = await connection.fetch(_MILESTONES, names)
                deliveries = await connection.fetch(_DELIVERIES, names)
                waiting: int = await connection.fetchval(_WAITING, names)
        finally:
            await connection.close()
        return Stored(
            tuple(StoredSignature(*row) for row in signatures),
            tuple(StoredChange(*row) for row in ledger),
            _lanes(lanes, gaps),
            tuple(StoredMilestone(**dict(row)) for row in milestones),
            tuple(StoredDelivery(**dict(row)) for row in deliveries),
            waiting,
            frozenset((row["lane"], row["position"]) for row in sacrificed),
        )

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self._url, timeout=5, command_timeout=_TIMEOUT_SECONDS)

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await self._connect()
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


def _lanes(rows: Collection[Any], gaps: Collection[Any]) -> dict[int, Lane]:
    return {
        row["lane"]: Lane(
            row["rows"],
            row["first"],
            row["last"],
            tuple((gap["first"], gap["last"]) for gap in gaps if gap["lane"] == row["lane"]),
        )
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class Counted:
    """The tallies in Redis, and whether the ledger proves them (by the same audit as `groundswell audit`)."""

    states: Mapping[str, TallyState]
    audits: tuple[PetitionAudit, ...]


async def counted(redis_url: str, postgres_url: str, petition_ids: Collection[str]) -> Counted:
    """Read and audit the tallies of these petitions.

    Raises:
        redis.exceptions.RedisError, asyncpg.PostgresError, OSError: something does not answer.
    """
    redis = shared_redis.connect(redis_url)
    database = Database(postgres_url, application="observer", size=1)
    try:
        await database.open()
        store = TallyStore(redis)
        states = {petition_id: await store.state(petition_id) for petition_id in petition_ids}
        return Counted(states, tuple(await audit(store, Ledger(database), petition_ids)))
    finally:
        await redis.aclose()
        await database.close()
