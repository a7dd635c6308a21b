"""Audits: comparing Redis with the ledger, petition by petition, exactly, also under traffic.

A tally's fences say which ledger rows it has counted. The sum of exactly those rows must give its count, its revision and
its break-downs, at any moment; the rows beyond the fences are still under way.
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
"""How long a row may lack its fact while there is no lag: verify publishes right after its commit, but Kafka may be away in
between, or verify be killed and its partitions move to another instance."""
_STANDSTILL_SECONDS: Final = 60.0
"""The same, at any lag. If a fact is only late, this costs one unneeded rebuild."""


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
    """Other differences: ``revision``, ``epoch``, ``fence 3``, ``country NL``, ``minute 29400123``, ``announced 12 at …``."""
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
        ledger: The ledger, which proves the tallies.
        petition_ids: The petitions to audit.
        announced: The last snapshots on the topic, read before the tallies: one with a higher version is a difference.

    Raises:
        asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; there is no result.
    """
    told = announced or {}
    return [await audit_one(store, ledger, petition_id, told.get(petition_id)) for petition_id in sorted(petition_ids)]


async def audit_one(
    store: TallyStore, ledger: Ledger, petition_id: str, announced: TallyUpdated | None = None
) -> PetitionAudit:
    """Audit one petition. Arguments and errors as those of `audit`."""
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
        # A fence above the last counted row would drop the facts in between.
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
"""Rebuilds a petition's tally from the ledger; called with its id, and the cause for the metric."""


class AuditLoop:
    """Audits the petitions that this process counts, and rebuilds the tallies that it finds wrong.

    A finding is logged before anything is changed: it is the evidence. Ledger rows that Redis has not counted are usually
    under way. They count as lost when the tally has not moved for half a minute and there is no lag, or when it has not
    moved for a minute: with steady traffic there is always some lag. The petition is then rebuilt from the ledger, which
    is right in any case: facts that come after all are at or below its fences.

    The length of a round depends on the size of the ledger. So the next round starts after `_SHARE` times the duration of
    the last one, but after at least `_LEAST_SECONDS` and at most `interval_seconds`: a small installation is audited every
    few seconds, a large one spends a fiftieth of its time on audits.

    Args:
        store: The tallies.
        ledger: The ledger, which proves the tallies.
        metrics: The counting metrics.
        owns: Returns every petition, and whether this process counts it.
        interval_seconds: The longest time between two rounds; 0 turns audits off.
        heal: Rebuilds a wrong tally; None leaves it as it is.
        compare: Called with the petitions of a round, so that their announced snapshots are compared with their counts.
        lag: Returns the number of facts that this process has not read yet; None if it is not known.
        thresholds: Returns the milestones of a petition.
        reached: Called with a petition and a milestone that it has reached and that was never recorded.
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
        """Petitions with uncounted rows at the previous audit: their fences, and since when these have not moved."""

    async def run(self) -> None:
        """Audit for ever. An audit that cannot be made is counted as ``not_made``, never as ``right``."""
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
        """Audit a petition, and rebuild it if it is wrong. Returns the final result."""
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
