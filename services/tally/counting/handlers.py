"""A batch through tally: decode → count (fenced, in Redis) → announce milestones. The consumer commits afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord

from services.tally.counting.announce import MilestoneAnnouncer, SnapshotAnnouncer
from services.tally.counting.facts import ReadFact, RevokedFact, VerifiedFact
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.owner import OwnersWord
from services.tally.counting.step import Step, by_petition, first_positions, lost_state, step
from services.tally.counting.store import Applied, Damaged, NotApplied, Reached, TallyState, TallyStore
from shared.contract.bounds import FACT_AHEAD, MOST_LANE, MOST_POSITION, fit
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, SignatureRevoked, SignatureVerified, TallyUpdated
from shared.contract.topics import SIGNATURES_VERIFIED
from shared.kafka.decode import read_event, reader
from shared.kafka.errors import InvalidRecord, SetAside, is_transient
from shared.kafka.partitioner import partition_of
from shared.kafka.producer import EventProducer
from shared.runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

_FACTS: Final[dict[str, Callable[[bytes], ReadFact]]] = {
    SignatureVerified.TYPE: reader(VerifiedFact),
    SignatureRevoked.TYPE: reader(RevokedFact),
}

_ROUNDS = 20
"""A step is computed again each time that its fences turn out to be elsewhere; that often means two owners at work."""

_WATCH_SECONDS = 1.0
"""How long a loss of Redis may go unnoticed while nobody signs."""

_EPOCHS_SINCE: Final = timedelta(days=1)
"""Epochs that were raised before this process started were told by another one; a day covers a clock that is off."""

_TELL_AGAIN_SECONDS = 300.0
"""An owner before us that woke late may have recorded a milestone and died, or published an older snapshot after ours while
nobody read along. So once in a while every petition's snapshot goes out again, and what is not announced is looked for, as
at assignment."""


class FencesKeepMoving(ConnectionError):
    """Another process counts on the same partitions. Transient: one of the two is about to lose them."""


def decode(record: ConsumerRecord[Any, Any]) -> ReadFact:
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
        announced: Callable[[str], TallyUpdated | None] = lambda _: None,
    ) -> None:
        self._catalogue, self._store, self._ledger, self._healer = catalogue, store, ledger, healer
        self._milestones, self._snapshots = milestones, snapshots
        self._producer, self._metrics = producer, metrics
        self._announced = announced
        self._word = OwnersWord(store=store, rebuild=self._put_right, metrics=metrics)
        milestones.on_unproved = self._on_unproved
        snapshots.on_damaged = self.on_damaged
        self._counting = asyncio.Lock()  # the batch and the watch take turns at fences and rebuilds
        self._fences: dict[str, dict[int, int]] = {}
        self._lane_ends: dict[int, int] = {}
        self._peaks: dict[str, int] = {}
        self._to_rebuild: dict[str, str] = {}
        self._unrecorded: dict[str, set[int]] = {}
        self._epochs_seen = datetime.now(UTC) - _EPOCHS_SINCE
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
        self._to_rebuild.clear()
        self._word.forget()
        self._healer.forget()
        self._snapshots.forget()

    async def on_petition_change(self, petition: PetitionChanged) -> None:
        """A petition is new or changed: it may have a milestone that its count has passed already."""
        self._to_evaluate.add(petition.petition_id)

    def on_overtaken(self, petition_id: str, version: tuple[int, int]) -> None:
        """The topic ends with `version` after a newer snapshot, or with something that is none: put that right."""
        if self._owns(petition_id):
            self._metrics.snapshots_overtaken.inc()
            log.warning("snapshot_overtaken", petition=petition_id, version=version)
            self._snapshots.overtaken(petition_id, version)

    def on_announced(self, snapshot: TallyUpdated, value: bytes) -> None:
        """A snapshot stands on the topic. If this process owns its petition and has not written it, it is compared."""
        if self._owns(snapshot.petition_id) and not self._snapshots.is_ours(
            snapshot.petition_id, snapshot.version, value
        ):
            self._word.heard(snapshot)

    def compare(self, petition_ids: Iterable[str]) -> None:
        """Compare what was last announced of these petitions with what is counted, at the next look."""
        for petition_id in petition_ids:
            if (announced := self._announced(petition_id)) is not None:
                self._word.heard(announced)

    def on_damaged(self, petition_ids: Iterable[str]) -> None:
        """What Redis has of these petitions is no tally."""
        self._to_rebuild.update({petition_id: "damaged" for petition_id in petition_ids if self._owns(petition_id)})

    def _on_unproved(self, petition_id: str) -> None:
        self._to_rebuild[petition_id] = "milestone"

    def _owns(self, petition_id: str) -> bool:
        return (
            self._partitions is not None
            and self._catalogue.get(petition_id) is not None
            and partition_of(petition_id.encode(), self._partitions) in self._owned
        )

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

    async def process(self, batch: Sequence[ReadFact]) -> None:
        """Count a batch and announce what it reached. Repeating it, or a part of it, changes nothing."""
        grouped = by_petition(batch)
        async with self._counting:
            partitions = await self._partition_count()
            await self._heal({partition_of(petition.encode(), partitions) for petition in grouped})
            await self._require_rows(batch)
            started = time.perf_counter()
            reached = await self._count(grouped)
            self._metrics.apply_seconds.observe(time.perf_counter() - started)
        await self._milestones.announce(reached)
        oldest = min(facts[0]["occurred_at"] for facts in grouped.values())  # the first of each has waited longest
        self._metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))

    async def _require_rows(self, batch: Sequence[ReadFact]) -> None:
        """Refuse facts beyond the end of their lane in the ledger: a fact is published after its row was committed.

        A fence that such a fact had moved would drop every later fact of its lane. Facts that nobody decided may also lie
        before the end; these the audit finds.

        Raises:
            SetAside: some are.
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

    async def _count(self, grouped: dict[str, list[ReadFact]]) -> list[Reached]:
        reached: list[Reached] = []
        for _ in range(_ROUNDS):
            steps = [(petition, step(facts, self._fences.get(petition, {}))) for petition, facts in grouped.items()]
            await failpoint("tally.before_apply")
            replies = await self._store.apply([(petition, part, self.thresholds(petition)) for petition, part in steps])
            await failpoint("tally.applied")
            refusals: dict[str, NotApplied] = {}
            damaged: dict[str, str] = {}
            for (petition, part), reply in zip(steps, replies, strict=True):
                if isinstance(reply, NotApplied):
                    refusals[petition] = reply
                elif isinstance(reply, Damaged):
                    damaged[petition] = reply.what
                else:
                    self._note_applied(petition, part, len(grouped[petition]))
                    reached.extend(reply.unannounced)
            for petition, what in damaged.items():
                log.error("tally_damaged", petition=petition, field=what)
                await self._rebuild(petition, cause="damaged")
            await self._learn_fences(refusals, grouped)
            grouped = {petition: grouped[petition] for petition in (*refusals, *damaged)}
            if not grouped:
                return reached
        raise FencesKeepMoving(f"the fences of {len(grouped)} petitions moved {_ROUNDS} times")

    def _note_applied(self, petition: str, part: Step, facts: int) -> None:
        self._fences[petition] = part.fences_after(self._fences.get(petition, {}))
        self._metrics.counted.inc(part.changes)
        self._metrics.replays.inc(facts - part.changes)
        self._snapshots.changed([petition])

    async def _learn_fences(
        self, refusals: Mapping[str, NotApplied], grouped: Mapping[str, Sequence[ReadFact]]
    ) -> None:
        """Find out why steps were refused: fences to be read first, another process, or a tally that is not right."""
        unknown = await self._unknown_fences(refusals)
        for petition, refused in refusals.items():
            cause = await self._wrong_because(petition, refused, grouped[petition], unknown)
            if cause is not None:
                await self._rebuild(petition, cause=cause)

    async def _unknown_fences(self, refusals: Mapping[str, NotApplied]) -> set[str]:
        """Petitions with a stored fence that is no row of the ledger: nobody has counted up to there."""
        told = [
            (petition, lane, fence)
            for petition, refused in refusals.items()
            for lane, fence in refused.fences.items()
            if fence > 0 and fence != self._fences.get(petition, {}).get(lane)
        ]
        return {petition for petition, _, _ in await self._ledger.not_there(told)} if told else set()

    async def _wrong_because(
        self, petition: str, refused: NotApplied, facts: Sequence[ReadFact], unknown: Collection[str]
    ) -> str | None:
        """Why a petition has to be rebuilt; None if it has not, and its fences are known now."""
        known = self._fences.setdefault(petition, {})
        expected = {lane: known[lane] for lane in refused.fences if lane in known}
        if petition in unknown:
            return "fence_unknown"
        if lost_state(expected, refused.fences):
            return "fence_behind"
        first = first_positions(facts)
        if refused.missing:
            if any(known.values()) or await self._ledger.has_earlier(petition, first):
                return "missing"
            # Nobody knows whether what the ledger has in other lanes was counted and lost, or is still under way.
            if await self._ledger.has_other(petition, first):
                return "first_count"
        else:
            empty = {lane: first[lane] for lane, fence in refused.fences.items() if lane not in known and fence == 0}
            if empty and await self._ledger.has_earlier(petition, empty):
                return "missing"
        self._metrics.fence_moved.inc(any(refused.fences[lane] != fence for lane, fence in expected.items()))
        known.update(refused.fences)
        return None

    async def _rebuild(self, petition: str, *, cause: str, above: int = -1) -> TallyState:
        state = await self._healer.rebuild(petition, cause=cause, ledger_rules=True, above=above)
        self._note_rebuilt(petition, state)
        return state

    def _note_rebuilt(self, petition: str, state: TallyState) -> None:
        self._fences[petition] = dict(state.fences)
        self._peaks[petition] = state.peak
        self._to_evaluate.add(petition)  # its milestones, by the watch: also if the batch fails from here on
        self._snapshots.rebuilt(petition)

    async def _put_right(self, petition: str, cause: str, above: int) -> TallyState:
        async with self._counting:
            return await self._rebuild(petition, cause=cause, above=above)

    async def heal(self, petition: str, cause: str) -> TallyState:
        """Count a petition again from the ledger, beside running traffic: something was found to be wrong with it.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: try again.
        """
        return await self._put_right(petition, cause, -1)

    def reached(self, petition: str, threshold: int) -> None:
        """The ledger has counted up to a milestone that was never recorded: announce it at the next look.

        Whatever Redis has noted of it, it was not announced.
        """
        self._unrecorded.setdefault(petition, set()).add(threshold)
        self._to_evaluate.add(petition)
        self._peaks[petition] = max(self._peaks.get(petition, 0), threshold)

    def thresholds(self, petition_id: str) -> list[int]:
        """The petition's milestones, rising."""
        petition = self._catalogue.get(petition_id)
        return petition.milestones if petition is not None else []

    async def _heal(self, partitions: Iterable[int]) -> None:
        """Rebuild, if this is another Redis than before."""
        count = await self._partition_count()
        rebuilt = await self._healer.ensure(set(partitions), lambda petition: partition_of(petition.encode(), count))
        for petition, state in rebuilt.items():
            self._note_rebuilt(petition, state)

    async def _evaluate(self, petitions: Sequence[str]) -> list[Reached]:
        """Milestones of these petitions that are reached and not announced, without counting anything."""
        if not petitions:
            return []
        for petition in self._unrecorded.keys() & set(petitions):
            for threshold in self._unrecorded[petition]:
                await self._store.forget_milestone(petition, threshold)
            del self._unrecorded[petition]
        steps = [
            (petition, Step(highest=self._peaks.get(petition, 0)), self.thresholds(petition)) for petition in petitions
        ]
        replies = await self._store.apply(steps)
        reached: list[Reached] = []
        for petition, reply in zip(petitions, replies, strict=True):
            if isinstance(reply, Damaged):
                self._to_rebuild[petition] = "damaged"
            elif isinstance(reply, Applied):
                if reply.revision:  # else Redis has lost the tally again
                    self._peaks.pop(petition, None)
                reached.extend(reply.unannounced)
        return reached

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
        await self._put_all_right()
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
                self.compare(mine)
                reached += await self._left_unannounced()
            await self._milestones.announce(reached)
            if assigned:
                self._told_all_at = time.monotonic()
        except BaseException:
            self._to_evaluate |= changed
            self._just_assigned = self._just_assigned or assigned
            raise

    async def _put_all_right(self) -> None:
        """Rebuild what was found to be wrong, and answer what others say on the topic."""
        for petition, cause in list(self._to_rebuild.items()):
            await self.heal(petition, cause)
            self._to_rebuild.pop(petition, None)
        await self._word.put_right()
        # An operator's command has begun a new epoch: the topic has to say so.
        for petition, raised_at in (await self._ledger.epochs_raised_since(self._epochs_seen)).items():
            self._epochs_seen = max(self._epochs_seen, raised_at)
            if self._owns(petition):
                self._snapshots.changed([petition])

    async def _left_unannounced(self) -> list[Reached]:
        """What a crash between PostgreSQL and Kafka left, also of petitions that the catalogue does not hold yet."""
        count = await self._partition_count()
        left = await self._ledger.unannounced()
        return [reached for reached in left if partition_of(reached.petition_id.encode(), count) in self._owned]
