"""Counting: a batch of facts moves the tallies in Redis, each fact once.

Contract
--------
* A fact is counted only after its row is in the ledger; one that is ahead of its lane's end is set aside (`require_rows`).
* A step (`step.step`) is computed from the known fences and applied only if the stored ones are the same. If they differ,
  the reason is found before the retry: fences that were not known yet, another process, or a tally that lost state and is
  rebuilt first.
* Counting a batch is idempotent, also for a part of it.

The caller of `count` holds `KnownFences.turn`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.facts import ReadFact
from services.tally.counting.fences import KnownFences
from services.tally.counting.healing import Repairs
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import Step, first_positions, lost_state, step
from services.tally.counting.tally import Damaged, NotApplied, Reached
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import InvalidRecord, SetAside

log = structlog.get_logger(__name__)

_ROUNDS = 20
"""A step is computed again each time that the stored fences differ; this many times in a row means two owners at work."""


class FencesKeepMoving(ConnectionError):
    """Another process counts on the same partitions. Transient: one of the two is about to lose them."""


class FactCounter:
    """Counts facts.

    Args:
        store: The tallies.
        ledger: The ledger, which proves the tallies.
        fences: The fences that this process knows.
        repairs: Rebuilds tallies that turn out to be wrong.
        snapshots: Notified of changed counts.
        thresholds: Returns the milestones of a petition, rising.
        metrics: The counting metrics.
    """

    def __init__(
        self,
        *,
        store: TallyStore,
        ledger: Ledger,
        fences: KnownFences,
        repairs: Repairs,
        snapshots: SnapshotAnnouncer,
        thresholds: Callable[[str], Sequence[int]],
        metrics: TallyMetrics,
    ) -> None:
        self._store, self._ledger, self._fences = store, ledger, fences
        self._repairs, self._snapshots = repairs, snapshots
        self._thresholds, self._metrics = thresholds, metrics
        self._lane_ends: dict[int, int] = {}

    async def require_rows(self, batch: Sequence[ReadFact]) -> None:
        """Set aside facts beyond the end of their lane in the ledger: a fact is published only after its row is committed.

        Such a fact would move the fence, which would then drop every later fact of the lane. A forged fact before the end
        is not noticed here; the audit finds it.

        Raises:
            SetAside: some facts are beyond the end.
        """
        ahead = {fact["lane"] for fact in batch if fact["position"] > self._lane_ends.get(fact["lane"], 0)}
        if not ahead:
            return
        self._lane_ends.update(await self._ledger.lane_ends(sorted(ahead)))
        refused = {
            place: InvalidRecord("not_in_ledger", f"lane {fact['lane']} of the ledger ends before this position")
            for place, fact in enumerate(batch)
            if fact["position"] > self._lane_ends[fact["lane"]]
        }
        if refused:
            raise SetAside(refused)

    async def count(self, grouped: Mapping[str, Sequence[ReadFact]]) -> list[Reached]:
        """Count facts, grouped by petition.

        Returns:
            The milestones that are to be announced.

        Raises:
            FencesKeepMoving: another process counts the same petitions; transient.
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient.
        """
        reached: list[Reached] = []
        for _ in range(_ROUNDS):
            steps = [(petition, step(facts, self._fences.of(petition))) for petition, facts in grouped.items()]
            await failpoint("tally.before_apply")
            replies = await self._store.apply(
                [(petition, part, self._thresholds(petition)) for petition, part in steps]
            )
            await failpoint("tally.applied")
            not_applied: dict[str, NotApplied] = {}
            damaged: dict[str, str] = {}
            for (petition, part), reply in zip(steps, replies, strict=True):
                if isinstance(reply, NotApplied):
                    not_applied[petition] = reply
                elif isinstance(reply, Damaged):
                    damaged[petition] = reply.what
                else:
                    self._note_applied(petition, part, len(grouped[petition]))
                    reached.extend(reply.unannounced)
            for petition, what in damaged.items():
                log.error("tally_damaged", petition=petition, field=what)
                await self._repairs.rebuild(petition, cause="damaged")
            await self._find_out_why(not_applied, grouped)
            grouped = {petition: grouped[petition] for petition in (*not_applied, *damaged)}
            if not grouped:
                return reached
        raise FencesKeepMoving(f"the fences of {len(grouped)} petitions moved {_ROUNDS} times")

    def _note_applied(self, petition: str, part: Step, facts: int) -> None:
        self._fences.applied(petition, part)
        self._metrics.counted.inc(part.changes)
        self._metrics.replays.inc(facts - part.changes)
        self._snapshots.changed([petition])

    async def _find_out_why(
        self, not_applied: Mapping[str, NotApplied], grouped: Mapping[str, Sequence[ReadFact]]
    ) -> None:
        """Find out why steps were not applied, and rebuild the tallies that are wrong."""
        unknown = await self._unknown_fences(not_applied)
        for petition, found in not_applied.items():
            cause = await self._wrong_because(petition, found, grouped[petition], unknown)
            if cause is not None:
                await self._repairs.rebuild(petition, cause=cause)

    async def _unknown_fences(self, not_applied: Mapping[str, NotApplied]) -> set[str]:
        """Petitions with a stored fence that is not a row of the ledger, so that no correct process can have set it."""
        stored = [
            (petition, lane, fence)
            for petition, found in not_applied.items()
            for lane, fence in found.fences.items()
            if fence > 0 and fence != self._fences.of(petition).get(lane)
        ]
        return {petition for petition, _, _ in await self._ledger.not_there(stored)} if stored else set()

    async def _wrong_because(
        self, petition: str, found: NotApplied, facts: Sequence[ReadFact], unknown: Collection[str]
    ) -> str | None:
        """The cause for which a petition has to be rebuilt; None if it need not be, and its fences are known now."""
        known = self._fences.of(petition)
        expected = {lane: known[lane] for lane in found.fences if lane in known}
        if petition in unknown:
            return "fence_unknown"
        if lost_state(expected, found.fences):
            return "fence_behind"
        first = first_positions(facts)
        if found.missing:
            if any(known.values()) or await self._ledger.has_earlier(petition, first):
                return "missing"
            # It cannot be known whether changes in other lanes were counted and lost, or are still under way.
            if await self._ledger.has_other(petition, first):
                return "first_count"
        else:
            empty = {lane: first[lane] for lane, fence in found.fences.items() if lane not in known and fence == 0}
            if empty and await self._ledger.has_earlier(petition, empty):
                return "missing"
        self._metrics.fence_moved.inc(any(found.fences[lane] != fence for lane, fence in expected.items()))
        self._fences.learned(petition, found.fences)
        return None
