"""An operator's work on the counts: auditing them, and rebuilding them from the ledger.

Plain functions for a command or a console, safe under traffic; they print nothing. Each takes an open `Counts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.errors import KafkaError

from services.tally.announced import announced_now
from services.tally.counting.audit import PetitionAudit
from services.tally.counting.audit import audit as audit_petitions
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from shared import redis as shared_redis
from shared.contract.events import TallyUpdated
from shared.kafka.security import why_unreachable
from shared.postgres import Database
from shared.runtime.settings import KafkaSettings
from shared.service import new_registry

_CONNECT_SECONDS: Final = 10.0
_ANNOUNCED_SECONDS: Final = 30.0


class CountsAway(ConnectionError):
    """PostgreSQL did not answer in time. The message gives the reason, as far as known."""


class Counts:
    """Redis and the ledger, opened for one operation.

    Args:
        redis_url: In the format of REDIS_URL.
        postgres_url: In the format of POSTGRES_URL.
    """

    def __init__(self, *, redis_url: str, postgres_url: str) -> None:
        self._redis = shared_redis.connect(redis_url)
        self._database = Database(postgres_url, application="command")
        self.store, self.ledger = TallyStore(self._redis), Ledger(self._database)
        self.healer = Healer(
            redis=self._redis, store=self.store, ledger=self.ledger, metrics=TallyMetrics(new_registry())
        )

    async def __aenter__(self) -> Counts:
        """Connect.

        Raises:
            CountsAway: PostgreSQL does not answer within ten seconds.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._database.open()
        except TimeoutError:
            raise CountsAway(await self._database.check()) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._redis.aclose()
        await self._database.close()


@dataclass(frozen=True, slots=True)
class Announced:
    """The snapshots on ``tallies.updated``."""

    snapshots: dict[str, TallyUpdated]
    """The newest snapshot of each petition; empty if the topic could not be read."""
    unknown: str | None = None
    """Why it could not be read."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of comparing Redis with the ledger and with what was announced."""

    petitions: list[PetitionAudit]
    not_compared: str | None
    """Why the counts were not compared with what was announced; None if they were."""

    @property
    def drift(self) -> int:
        """The sum of the absolute drifts of all petitions."""
        return sum(abs(petition.drift) for petition in self.petitions)

    @property
    def right(self) -> bool:
        """Whether nothing differs."""
        return all(petition.right for petition in self.petitions)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.right,
            "drift": self.drift,
            "announced_compared": self.not_compared is None,
            "petitions": [petition.as_json() for petition in self.petitions],
        }


async def read_announced(kafka: KafkaSettings) -> Announced:
    """Read the newest snapshots; without Kafka, return none and the reason: Redis and the ledger can still be compared."""
    try:
        async with asyncio.timeout(_ANNOUNCED_SECONDS):
            return Announced(await announced_now(kafka))
    except (KafkaError, OSError, TimeoutError) as error:
        return Announced({}, f"Kafka is away: {await why_unreachable(kafka) or type(error).__name__}")


async def audit(counts: Counts, announced: Announced, petitions: Sequence[str] = ()) -> Audit:
    """Compare the counts in Redis with the ledger, exactly, also under traffic, and with what was announced.

    Args:
        counts: Redis and the ledger.
        announced: Read before this call: a snapshot with a higher version than the tally is a difference.
        petitions: The petitions to audit; all, if empty.

    Raises:
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; there is no result.
    """
    chosen = petitions or sorted({*await counts.ledger.petitions(), *announced.snapshots})
    results = await audit_petitions(counts.store, counts.ledger, chosen, announced.snapshots)
    return Audit(results, announced.unknown)


async def rebuild(counts: Counts, petitions: Sequence[str] = (), *, force: bool = False) -> dict[str, TallyState]:
    """Rebuild tallies from the ledger and replace those in Redis, also under traffic.

    Args:
        counts: Redis and the ledger.
        petitions: The petitions to rebuild; all in the ledger, if empty.
        force: Also where Redis has counted more than the ledger has, as after a loss of PostgreSQL.

    Returns:
        The new state of each petition.

    Raises:
        RebuildOvertaken: a stored tally was ahead of every snapshot of the ledger.
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; petitions before it are rebuilt.
    """
    return {
        petition_id: await counts.healer.rebuild(petition_id, cause="command", force=force)
        for petition_id in petitions or await counts.ledger.petitions()
    }
