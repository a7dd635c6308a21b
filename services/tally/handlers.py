"""A batch through tally: decode → count (fenced, in Redis) → announce milestones. The consumer commits afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord

from services.tally.announce import MilestoneAnnouncer, SnapshotAnnouncer
from services.tally.counting import Step, by_petition, first_positions, lost_state, step
from services.tally.facts import CountedFact, RevokedFact, VerifiedFact
from services.tally.healing import Healer
from services.tally.ledger import Ledger
from services.tally.metrics import TallyMetrics
from services.tally.store import Applied, Reached, Refused, TallyStore
from shared.bounds import FACT_AHEAD, MOST_LANE, MOST_POSITION, fit
from shared.catalogue import Catalogue
from shared.events import PetitionChanged, SignatureRevoked, SignatureVerified
from shared.failpoints import failpoint
from shared.kafka.decode import read_event, reader
from shared.kafka.errors import InvalidRecord, is_transient
from shared.kafka.partitioner import partition_of
from shared.kafka.producer import EventProducer
from shared.topics import SIGNATURES_VERIFIED

log = structlog.get_logger(__name__)

_FACTS: Final[dict[str, Callable[[bytes], CountedFact]]] = {
    SignatureVerified.TYPE: reader(VerifiedFact),
    SignatureRevoked.TYPE: reader(RevokedFact),
}

_ROUNDS = 20
"""A step is computed again each time that its fences turn out to be elsewhere; that often means two owners at work."""

_WATCH_SECONDS = 1.0
"""How long a loss of Redis may go unnoticed while nobody signs."""

_TELL_AGAIN_SECONDS = 300.0
"""An owner before us that woke late may have recorded a milestone and died, or published an older snapshot after ours while
nobody read along. So once in a while every petition's snapshot goes out again, and what is not announced is looked for, as
at assignment."""


class FencesKeepMoving(ConnectionError):
    """Another process counts on the same partitions. Transient: one of the two is about to lose them."""


def decode(record: ConsumerRecord[Any, Any]) -> CountedFact:
    """Read one record of ``signatures.verified``.

    Raises:
        InvalidRecord: it is no fact that this version knows.
    """
    _, fact = read_event(record, _FACTS)
    if fact["lane"] > MOST_LANE or fact["position"] > MOST_POSITION:
        raise InvalidRecord("out_of_range", "lane or position cannot be one of the ledger's")
    if not fit(record, FACT_AHEAD, fact["signed_at"], fact["occurred_at"]):
        raise InvalidRecord("out_of_range", "signed_at and occurred_at are of the year 2000 or later, and not ahead")
    if record.key != fact["petition_id"].encode():
        # Facts of one petition in two partitions would have two writers.
        raise InvalidRecord("key", "the record key must be the petition id")
    return fact


class TallyHandler:
    """Counts facts, and keeps the counts right while Redis, the catalogue and the assignment change."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: TallyStore,
        ledger: Ledger,
        healer: Healer,
        milestones: MilestoneAnnouncer,
        snapshots: SnapshotAnnouncer,
        producer: EventProducer,
        metrics: TallyMetrics,
    ) -> None:
        self._catalogue, self._store, self._ledger, self._healer = catalogue, store, ledger, healer
        self._milestones, self._snapshots = milestones, snapshots
        self._producer, self._metrics = producer, metrics
        self._counting = asyncio.Lock()  # the batch and the watch take turns at fences and rebuilds
        self._fences: dict[str, dict[int, int]] = {}
        self._owned: set[int] = set()
        self._partitions: int | None = None
        self._just_assigned = False
        self._told_all_at = time.monotonic()
        self._to_evaluate: set[str] = set()

    # ------------------------------------------------------------------------------------------------ who owns what

    async def on_assigned(self, partitions: set[int]) -> None:
        """New partitions: nothing that was known about fences and witnesses can be relied on."""
        self._owned = partitions
        self._forget()
        self._just_assigned = bool(partitions)

    async def on_revoked(self, _: set[int]) -> None:
        """The partitions are somebody else's now."""
        self._owned = set()
        self._forget()

    def _forget(self) -> None:
        self._fences.clear()
        self._healer.forget()
        self._snapshots.forget()

    async def on_petition_change(self, petition: PetitionChanged) -> None:
        """A petition is new or changed: it may have a milestone that its count has passed already."""
        self._to_evaluate.add(petition.petition_id)

    def on_overtaken(self, petition_id: str, revision: int) -> None:
        """A process that was an owner before has published `revision` after a newer snapshot: put that right."""
        if self._partitions is not None and partition_of(petition_id.encode(), self._partitions) in self._owned:
            self._metrics.snapshots_overtaken.inc()
            log.warning("snapshot_overtaken", petition=petition_id, revision=revision)
            self._snapshots.overtaken(petition_id, revision)

    @property
    def owned(self) -> frozenset[int]:
        """The partitions whose petitions this process counts."""
        return frozenset(self._owned)

    async def owns(self) -> dict[str, bool]:
        """Every petition of the catalogue, and whether this process counts it."""
        partitions = await self._partition_count()
        return {
            petition.petition_id: partition_of(petition.petition_id.encode(), partitions) in self._owned
            for petition in self._catalogue
        }

    async def _partition_count(self) -> int:
        if self._partitions is None:
            self._partitions = await self._producer.partitions(SIGNATURES_VERIFIED.name)
        return self._partitions

    # ---------------------------------------------------------------------------------------------------- the batch

    async def process(self, batch: Sequence[CountedFact]) -> None:
        """Count a batch and announce what it reached. Repeating it, or a part of it, changes nothing."""
        grouped = by_petition(batch)
        async with self._counting:
            partitions = await self._partition_count()
            await self._heal({partition_of(petition.encode(), partitions) for petition in grouped})
            started = time.perf_counter()
            reached = await self._count(grouped)
            self._metrics.apply_seconds.observe(time.perf_counter() - started)
        await self._milestones.announce(reached)
        oldest = min(facts[0]["occurred_at"] for facts in grouped.values())  # the first of each has waited longest
        self._metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))

    async def _count(self, grouped: dict[str, list[CountedFact]]) -> list[Reached]:
        reached: list[Reached] = []
        for _ in range(_ROUNDS):
            steps = [(petition, step(facts, self._fences.get(petition, {}))) for petition, facts in grouped.items()]
            await failpoint("tally.before_apply")
            replies = await self._store.apply(
                [(petition, part, self._thresholds(petition)) for petition, part in steps]
            )
            await failpoint("tally.applied")
            again: dict[str, list[CountedFact]] = {}
            for (petition, part), reply in zip(steps, replies, strict=True):
                if isinstance(reply, Refused):
                    await self._learn_fences(petition, reply, grouped[petition])
                    again[petition] = grouped[petition]
                else:
                    self._note_applied(petition, part, len(grouped[petition]))
                    reached.extend(reply.unannounced)
            if not again:
                return reached
            grouped = again
        raise FencesKeepMoving(f"the fences of {len(grouped)} petitions moved {_ROUNDS} times")

    def _note_applied(self, petition: str, part: Step, facts: int) -> None:
        self._fences[petition] = part.fences_after(self._fences.get(petition, {}))
        self._metrics.counted.inc(part.changes)
        self._metrics.replays.inc(facts - part.changes)
        self._snapshots.changed([petition])

    async def _learn_fences(self, petition: str, refused: Refused, facts: Sequence[CountedFact]) -> None:
        known = self._fences.setdefault(petition, {})
        expected = {lane: known[lane] for lane in refused.fences if lane in known}
        if lost_state(expected, refused.fences):
            await self._rebuild(petition, cause="fence_behind")
            return
        first = first_positions(facts)
        empty = {lane: first[lane] for lane, fence in refused.fences.items() if lane not in known and fence == 0}
        if empty and await self._ledger.has_earlier(petition, empty):
            await self._rebuild(petition, cause="missing")
            return
        self._metrics.fence_moved.inc(any(refused.fences[lane] != fence for lane, fence in expected.items()))
        known.update(refused.fences)

    async def _rebuild(self, petition: str, *, cause: str) -> None:
        state = await self._healer.rebuild(petition, cause=cause)
        self._fences[petition] = dict(state.fences)

    def _thresholds(self, petition_id: str) -> list[int]:
        petition = self._catalogue.get(petition_id)
        return petition.milestones if petition is not None else []

    async def _heal(self, partitions: Iterable[int]) -> None:
        """Rebuild, if this is another Redis than before."""
        count = await self._partition_count()
        rebuilt = await self._healer.ensure(set(partitions), lambda petition: partition_of(petition.encode(), count))
        for petition, state in rebuilt.items():
            self._fences[petition] = dict(state.fences)
        self._snapshots.changed(rebuilt)
        self._to_evaluate.update(rebuilt)  # their milestones, by the watch: also if this batch fails from here on

    async def _evaluate(self, petitions: Sequence[str]) -> list[Reached]:
        """Milestones of these petitions that are reached and not announced, without counting anything."""
        if not petitions:
            return []
        replies = await self._store.apply([(petition, Step(), self._thresholds(petition)) for petition in petitions])
        return [reached for reply in replies if isinstance(reply, Applied) for reached in reply.unannounced]

    # ------------------------------------------------------------------------------------------- beside the batches

    async def watch(self) -> None:
        """Look after what no batch touches: an idle Redis that was replaced, milestones that a crash left, new ones."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if not self._owned:
                continue
            try:
                await self._look_after()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._metrics.watch_failures.labels(cause=type(error).__name__).inc()
                log.warning("watch_delayed", cause=type(error).__name__)

    async def _look_after(self) -> None:
        async with self._counting:
            await self._heal(self._owned)
        if time.monotonic() - self._told_all_at >= _TELL_AGAIN_SECONDS:
            self._snapshots.tell_again()
            self._just_assigned = True
        changed, self._to_evaluate = self._to_evaluate, set()
        assigned, self._just_assigned = self._just_assigned, False
        try:
            mine = [petition for petition, owned in (await self.owns()).items() if owned]
            evaluate = sorted(mine if assigned else changed.intersection(mine))
            async with self._counting:
                reached = await self._evaluate(evaluate)
            self._snapshots.changed(evaluate)
            if assigned:
                reached += await self._left_unannounced()
            await self._milestones.announce(reached)
            if assigned:
                self._told_all_at = time.monotonic()
        except BaseException:
            self._to_evaluate |= changed
            self._just_assigned = self._just_assigned or assigned
            raise

    async def _left_unannounced(self) -> list[Reached]:
        """What a crash between PostgreSQL and Kafka left, also of petitions that the catalogue does not hold yet."""
        count = await self._partition_count()
        left = await self._ledger.unannounced()
        return [reached for reached in left if partition_of(reached.petition_id.encode(), count) in self._owned]
