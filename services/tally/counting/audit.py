"""Proving the count: Redis against the ledger, petition by petition, exact under running traffic.

A tally's fences say which ledger rows it has counted. Summing exactly those rows must give its count, its revision and
its break-downs, at any moment; the rows beyond the fences are what is still under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from services.tally.counting.announcing.taking_back import agrees
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import DamagedTally, TallyState
from shared.contract.events import TallyUpdated
from shared.redis import reading_twice
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

_LEAST_SECONDS: Final = 5.0
_SHARE: Final = 50
_UNCOUNTED_SECONDS: Final = 30.0
"""So long a row may be without its fact while there is no lag: verify publishes right after its commit, but Kafka may be away
in between, or verify be killed and its partitions go to another instance."""
_STANDSTILL_SECONDS: Final = 60.0
"""The same whatever the lag is. Where a fact is only late, counting from the ledger costs one more rebuild than needed."""


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
    """What else differs: ``revision``, ``epoch``, ``fence 3``, ``country NL``, ``minute 29400123``, ``announced 12 at …``."""
    fences: dict[int, int] = field(default_factory=dict)
    """The fences in Redis: per lane, the last position counted."""

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


async def audit(
    store: TallyStore,
    ledger: Ledger,
    petition_ids: Collection[str],
    announced: Mapping[str, TallyUpdated] | None = None,
) -> list[PetitionAudit]:
    """Audit petitions, one after the other.

    Args:
        store: The tallies.
        ledger: What proves them.
        petition_ids: Which.
        announced: What was announced last, read before the tallies are: what stands above them is a difference.

    Raises:
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; nothing can be said.
    """
    told = announced or {}
    return [await audit_one(store, ledger, petition_id, told.get(petition_id)) for petition_id in sorted(petition_ids)]


async def audit_one(
    store: TallyStore, ledger: Ledger, petition_id: str, announced: TallyUpdated | None = None
) -> PetitionAudit:
    """Audit one petition.

    Raises:
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; nothing can be said.
    """
    try:
        stored = await reading_twice(lambda: store.state(petition_id))
    except DamagedTally as damage:
        whole = await ledger.state(petition_id)
        return PetitionAudit(petition_id, 0, whole.count, whole.revision, (f"not readable: {damage}",))
    proved = await ledger.state_at(petition_id, stored.fences)
    beyond = await ledger.beyond(petition_id, stored.fences)
    differences = [
        *(["revision"] if stored.revision != proved.revision else []),
        *(["epoch"] if stored.epoch != await ledger.epoch(petition_id) else []),
        # A fence above the last row that was counted up to it drops what comes between.
        *_different("fence", stored.fences, proved.fences),
        *_different("country", stored.countries, proved.countries),
        *_different("minute", stored.minutes, proved.minutes),
        *_announced_above(stored, announced),
    ]
    return PetitionAudit(petition_id, stored.count, proved.count, beyond, tuple(differences), dict(stored.fences))


def _different(what: str, stored: Mapping[Any, int], proved: Mapping[Any, int]) -> list[str]:
    return [
        f"{what} {key}" for key in sorted(stored.keys() | proved.keys()) if stored.get(key, 0) != proved.get(key, 0)
    ]


def _announced_above(stored: TallyState, announced: TallyUpdated | None) -> list[str]:
    if announced is None or agrees(announced, stored.version, stored.count, stored.countries):
        return []
    return [f"announced {announced.count:,} at revision {announced.revision:,}, epoch {announced.epoch}"]


Heal = Callable[[str, str], Awaitable[object]]
"""Counts a petition again from the ledger: its id, and the cause for the metric."""


class AuditLoop:
    """Audits the petitions that this process counts, and puts right what it finds wrong.

    What was found is logged before anything is changed: it is the evidence. Rows that the ledger has and Redis has not
    counted are usually on their way. They count as lost when the tally has not moved for half a minute and there is no lag,
    or when it has not moved for a minute: where there is always traffic, there is always some lag. Then the petition is
    counted again from the ledger, which is right in any case: facts that come after all are at or below its fences.

    A round takes as long as there is to add up. So rounds follow each other after `_SHARE` times the time that the last
    one took, at least `_LEAST_SECONDS` and at most `interval_seconds`: a small installation is looked at every few
    seconds, a large one spends a fiftieth of its time on it.

    Args:
        store: The tallies.
        ledger: What proves them.
        metrics: Where results go.
        owns: Every petition, and whether this process counts it.
        interval_seconds: The longest time between two rounds; 0 turns audits off.
        heal: How a wrong tally is put right; None leaves it as it is.
        compare: Given the petitions of a round: what was announced of them is compared with what is counted.
        lag: Facts that this process has not read yet; None if that is not known.
        thresholds: The milestones of a petition.
        reached: Given a petition and a milestone that it has reached and that was never recorded.
    """

    def __init__(
        self,
        *,
        store: TallyStore,
        ledger: Ledger,
        metrics: TallyMetrics,
        owns: Callable[[], Awaitable[dict[str, bool]]],
        interval_seconds: float,
        heal: Heal | None = None,
        compare: Callable[[list[str]], None] = lambda _: None,
        lag: Callable[[], int | None] = lambda: None,
        thresholds: Callable[[str], list[int]] = lambda _: [],
        reached: Callable[[str, int], None] = lambda _, __: None,
    ) -> None:
        self._store, self._ledger, self._metrics = store, ledger, metrics
        self._owns, self._interval, self._heal = owns, interval_seconds, heal
        self._compare, self._lag = compare, lag
        self._thresholds, self._reached = thresholds, reached
        self._uncounted: dict[str, tuple[dict[int, int], float]] = {}
        """Petitions with uncounted rows at the audit before: their fences, and since when these have not moved."""

    async def run(self) -> None:
        """Audit for ever; an audit that cannot be made is counted as such, never as a good one."""
        took = 0.0
        while self._interval > 0:
            await asyncio.sleep(min(self._interval, max(_LEAST_SECONDS, _SHARE * took)))
            began = time.monotonic()
            try:
                await self._audit_once()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._metrics.audits.labels(result="not_made").inc()
                log.warning("audit_not_made", cause=type(error).__name__)
            took = time.monotonic() - began

    async def _audit_once(self) -> None:
        mine = [petition_id for petition_id, owned in (await self._owns()).items() if owned]
        results = [await self._audit(petition_id) for petition_id in sorted(mine)]
        self._metrics.drift.set(sum(abs(result.drift) for result in results))
        self._metrics.beyond.set(sum(result.beyond for result in results))
        self._metrics.audits.labels(result="right" if all(result.right for result in results) else "wrong").inc()
        self._compare(mine)

    async def _audit(self, petition_id: str) -> PetitionAudit:
        """Audit a petition, and put it right if it is wrong. Returns how it is left."""
        result = await audit_one(self._store, self._ledger, petition_id)
        if not result.right:
            log.error(
                "audit_drift",
                petition=petition_id,
                counted=result.counted,
                proved=result.proved,
                fences=result.fences,
                differences=list(result.differences[:20]),
            )
            result = await self._put_right(result, "drift")
        elif self._will_not_come(result):
            log.error("ledger_uncounted", petition=petition_id, rows=result.beyond, fences=result.fences)
            result = await self._put_right(result, "uncounted")
        await self._look_for_milestones(petition_id, result.proved)
        return result

    async def _put_right(self, result: PetitionAudit, cause: str) -> PetitionAudit:
        if self._heal is None:
            return result
        await self._heal(result.petition_id, cause)
        self._metrics.healed.inc()
        return await audit_one(self._store, self._ledger, result.petition_id)

    def _will_not_come(self, result: PetitionAudit) -> bool:
        before, now = self._uncounted.pop(result.petition_id, None), time.monotonic()
        if not result.beyond:
            return False
        if before is None or before[0] != result.fences:
            self._uncounted[result.petition_id] = result.fences, now
            return False
        self._uncounted[result.petition_id] = before
        return now - before[1] >= (_UNCOUNTED_SECONDS if self._lag() == 0 else _STANDSTILL_SECONDS)

    async def _look_for_milestones(self, petition_id: str, count: int) -> None:
        """Find milestones that were reached and never recorded, for whatever reason."""
        thresholds = self._thresholds(petition_id)
        if not thresholds or count < thresholds[0]:
            return
        recorded = await self._ledger.recorded_milestones(petition_id)
        for threshold in thresholds:
            if threshold <= count and threshold not in recorded:
                self._reached(petition_id, threshold)
