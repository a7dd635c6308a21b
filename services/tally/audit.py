"""Proving the count: Redis against the ledger, petition by petition, exact under running traffic.

A tally's fences say which ledger rows it has counted. Summing exactly those rows must give its count, its revision and
its break-downs, at any moment; the rows beyond the fences are what is still under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from services.tally.ledger import Ledger
from services.tally.metrics import TallyMetrics
from services.tally.store import TallyStore
from shared.kafka.errors import is_transient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PetitionAudit:
    """One petition's result."""

    petition_id: str
    counted: int
    """The count in Redis."""
    proved: int
    """The sum of the ledger rows at or below its fences."""
    beyond: int
    """Ledger rows that it has not counted yet."""
    differences: tuple[str, ...]
    """What else differs: ``revision``, ``country NL``, ``minute 29400123``."""

    @property
    def drift(self) -> int:
        """By how much the count is too high (above 0) or too low."""
        return self.counted - self.proved

    @property
    def right(self) -> bool:
        """Whether count, revision and break-downs all agree."""
        return self.drift == 0 and not self.differences

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "petition_id": self.petition_id,
            "counted": self.counted,
            "proved": self.proved,
            "drift": self.drift,
            "beyond": self.beyond,
            "differences": list(self.differences),
        }


async def audit(store: TallyStore, ledger: Ledger, petition_ids: Collection[str]) -> list[PetitionAudit]:
    """Audit petitions, one after the other.

    Raises:
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; nothing can be said.
    """
    results = []
    for petition_id in sorted(petition_ids):
        stored = await store.state(petition_id)
        proved = await ledger.state_at(petition_id, stored.fences)
        beyond = await ledger.beyond(petition_id, stored.fences)
        differences = [
            *(["revision"] if stored.revision != proved.revision else []),
            *_different("country", stored.countries, proved.countries),
            *_different("minute", stored.minutes, proved.minutes),
        ]
        results.append(PetitionAudit(petition_id, stored.count, proved.count, beyond, tuple(differences)))
    return results


def _different(what: str, stored: Mapping[Any, int], proved: Mapping[Any, int]) -> list[str]:
    return [
        f"{what} {key}" for key in sorted(stored.keys() | proved.keys()) if stored.get(key, 0) != proved.get(key, 0)
    ]


class AuditLoop:
    """Audits the petitions that this process counts, again and again, and puts the result into the metrics."""

    def __init__(
        self,
        *,
        store: TallyStore,
        ledger: Ledger,
        metrics: TallyMetrics,
        owns: Callable[[], Awaitable[dict[str, bool]]],
        interval_seconds: float,
    ) -> None:
        self._store, self._ledger, self._metrics = store, ledger, metrics
        self._owns, self._interval = owns, interval_seconds

    async def run(self) -> None:
        """Audit for ever; an audit that cannot be made is counted as such, never as a good one."""
        while self._interval > 0:
            await asyncio.sleep(self._interval)
            try:
                await self._audit_once()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._metrics.audits.labels(result="not_made").inc()
                log.warning("audit_not_made", cause=type(error).__name__)

    async def _audit_once(self) -> None:
        mine = [petition_id for petition_id, owned in (await self._owns()).items() if owned]
        results = await audit(self._store, self._ledger, mine)
        self._metrics.drift.set(sum(abs(result.drift) for result in results))
        self._metrics.beyond.set(sum(result.beyond for result in results))
        wrong = [result for result in results if not result.right]
        self._metrics.audits.labels(result="wrong" if wrong else "right").inc()
        for result in wrong:
            log.error(
                "audit_drift",
                petition=result.petition_id,
                counted=result.counted,
                proved=result.proved,
                differences=list(result.differences[:20]),
            )
