"""A batch through tally: decode → heal → require rows → count (fenced, in Redis) → announce milestones → commit.

The consumer calls `decode` for each record and `TallyHandler.process` for the batch, and commits when that returns. Each
part of the work has its own module: `ownership`, `count`, `healing`, `announcing.milestones`, and the `watch`, which runs
beside the batches. `TallyHandler` wires them together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import ConsumerRecord

from services.tally.counting.announcing.milestones import MilestoneAnnouncer, MilestoneFinder
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.announcing.taking_back import TakingBack
from services.tally.counting.count import FactCounter
from services.tally.counting.facts import ReadFact, RevokedFact, VerifiedFact
from services.tally.counting.fences import KnownFences
from services.tally.counting.healing import Healer, Repairs
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.ownership import Ownership
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import by_petition
from services.tally.counting.watch import Watch
from shared.contract.bounds import FACT_AHEAD, MOST_LANE, MOST_POSITION, fit
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, SignatureRevoked, SignatureVerified, TallyUpdated
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.decode import read_event, reader
from shared.runtime.failures import InvalidRecord

_FACTS: Final[dict[str, Callable[[bytes], ReadFact]]] = {
    SignatureVerified.TYPE: reader(VerifiedFact),
    SignatureRevoked.TYPE: reader(RevokedFact),
}


def decode(record: ConsumerRecord[Any, Any]) -> ReadFact:
    """Read one record of ``signatures.verified``.

    Raises:
        InvalidRecord: it is not a valid fact of a known type and version.
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
    """Counts facts, and keeps the counts right while Redis, the catalogue and the assignment change.

    Args:
        catalogue: The petitions.
        store: The tallies.
        ledger: The ledger, which proves the tallies.
        healer: Rebuilds tallies.
        milestones: Announces milestones that are reached.
        snapshots: Announces counts.
        producer: Knows the number of partitions of ``signatures.verified``.
        metrics: The counting metrics.
        announced: Returns the newest known snapshot of a petition on ``tallies.updated``.
    """

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
        self.metrics = metrics
        self.fences = KnownFences()
        self.ownership = Ownership(catalogue=catalogue, producer=producer)
        self._finder = MilestoneFinder(catalogue=catalogue, store=store, ledger=ledger, ownership=self.ownership)
        self._repairs = Repairs(
            healer=healer,
            ownership=self.ownership,
            fences=self.fences,
            milestones=self._finder,
            snapshots=snapshots,
        )
        self._counter = FactCounter(
            store=store,
            ledger=ledger,
            fences=self.fences,
            repairs=self._repairs,
            snapshots=snapshots,
            thresholds=self._finder.thresholds,
            metrics=metrics,
        )
        self._taking_back = TakingBack(
            ownership=self.ownership,
            store=store,
            snapshots=snapshots,
            announced=announced,
            rebuild=self._repairs.heal,
            metrics=metrics,
        )
        self.watching = Watch(
            ownership=self.ownership,
            fences=self.fences,
            repairs=self._repairs,
            finder=self._finder,
            milestones=milestones,
            snapshots=snapshots,
            taking_back=self._taking_back,
            ledger=ledger,
            metrics=metrics,
        )
        self._milestones, self._snapshots = milestones, snapshots
        milestones.on_unproved = self._on_unproved
        snapshots.on_damaged = self._on_damaged
        # Entry points for other parts of tally, bound to the objects that do the work.
        self.owns = self.ownership.petitions
        self.heal = self._repairs.heal
        self.compare = self._taking_back.compare
        self.on_overtaken = self._taking_back.on_overtaken
        self.on_announced = self._taking_back.on_announced
        self.thresholds = self._finder.thresholds
        self.reached = self._finder.reached
        self.watch = self.watching.run

    async def process(self, batch: Sequence[ReadFact]) -> None:
        """Count a batch and announce the milestones that it reached. Idempotent, also for a part of the batch.

        Raises:
            SetAside: facts are ahead of the ledger.
            FencesKeepMoving, RebuildOvertaken, asyncpg.PostgresError, aiokafka.errors.KafkaError,
                redis.exceptions.RedisError, OSError: transient; retry the batch.
        """
        grouped = by_petition(batch)
        async with self.fences.turn:
            partition = await self.ownership.partitioner()
            await self._repairs.ensure({partition(petition) for petition in grouped})
            await self._counter.require_rows(batch)
            started = time.perf_counter()
            reached = await self._counter.count(grouped)
            self.metrics.apply_seconds.observe(time.perf_counter() - started)
        await self._milestones.announce(reached)
        oldest = min(
            facts[0]["occurred_at"] for facts in grouped.values()
        )  # the first fact of each petition is its oldest
        self.metrics.age_seconds.observe(max(0.0, (datetime.now(UTC) - oldest).total_seconds()))

    async def on_assigned(self, partitions: set[int]) -> None:
        """Take over partitions. Known fences and witnesses may be outdated, so they are forgotten."""
        self.ownership.assign(partitions)
        self._forget()
        self.watching.assigned(partitions)

    async def on_revoked(self, _: set[int]) -> None:
        """Give up all partitions; other processes own them now."""
        self.ownership.assign(set())
        self._forget()

    def _forget(self) -> None:
        self.fences.forget()
        self._repairs.forget()
        self._taking_back.forget()
        self._snapshots.forget()

    async def on_petition_change(self, petition: PetitionChanged) -> None:
        """Note a new or changed petition: it may have a milestone that its count has passed already."""
        self._finder.changed([petition.petition_id])

    def _on_unproved(self, petition_id: str) -> None:
        self._repairs.found([petition_id], "milestone")

    def _on_damaged(self, petition_ids: Iterable[str]) -> None:
        self._repairs.found([one for one in petition_ids if self.ownership.owns(one)], "damaged")

    @property
    def owned(self) -> frozenset[int]:
        """The partitions whose petitions this process counts."""
        return self.ownership.partitions
