"""Milestones: finding those that are reached and not announced, and announcing each once.

Contract: a milestone is recorded in Redis by the call that reached it, is announced only if the ledger proves it (`proof`),
and is announced once: a publication that a crash repeats has the same id. Milestones that no batch reached, such as one that
was added below the present count, are found without counting anything (`MilestoneFinder`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from services.tally.counting.announcing import SOURCE
from services.tally.counting.announcing.proof import MilestoneProof
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.ownership import Ownership
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import Step
from services.tally.counting.tally import Applied, Damaged, Reached, TallyState
from shared.contract.catalogue import Catalogue
from shared.contract.events import MilestoneReached
from shared.contract.identity import milestone_id
from shared.contract.topics import MILESTONES_REACHED
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.runtime.failpoints import failpoint

log = structlog.get_logger(__name__)


class MilestoneFinder:
    """Finds milestones that are reached and not announced, without counting anything.

    Args:
        catalogue: The petitions and their milestones.
        store: The tallies.
        ledger: The milestones that were recorded.
        ownership: Knows the petitions to look at.
    """

    def __init__(self, *, catalogue: Catalogue, store: TallyStore, ledger: Ledger, ownership: Ownership) -> None:
        self._catalogue, self._store, self._ledger, self._ownership = catalogue, store, ledger, ownership
        self._changed: set[str] = set()
        self._peaks: dict[str, int] = {}
        self._unrecorded: dict[str, set[int]] = {}

    def thresholds(self, petition_id: str) -> list[int]:
        """The petition's milestones, rising."""
        petition = self._catalogue.get(petition_id)
        return petition.milestones if petition is not None else []

    def changed(self, petition_ids: Iterable[str]) -> None:
        """Note petitions that may have a milestone that their count has passed already."""
        self._changed.update(petition_ids)

    def rebuilt(self, petition_id: str, state: TallyState) -> None:
        """Note a rebuilt tally: milestones up to its peak are reached."""
        self._peaks[petition_id] = state.peak
        self._changed.add(petition_id)

    def reached(self, petition_id: str, threshold: int) -> None:
        """Note a milestone that the ledger proves and that was never recorded: the next look finds it.

        It was never announced, whatever Redis has marked it as.
        """
        self._unrecorded.setdefault(petition_id, set()).add(threshold)
        self._changed.add(petition_id)
        self._peaks[petition_id] = max(self._peaks.get(petition_id, 0), threshold)

    def take_changed(self) -> set[str]:
        """Return and forget the petitions that were noted since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    async def find(self, petitions: Sequence[str]) -> tuple[list[Reached], list[str]]:
        """Milestones of these petitions that are reached and not announced, and the petitions whose tallies are damaged.

        The caller holds `KnownFences.turn`.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away; transient.
        """
        if not petitions:
            return [], []
        for petition in self._unrecorded.keys() & set(petitions):
            for threshold in self._unrecorded[petition]:
                await self._store.forget_milestone(petition, threshold)
            del self._unrecorded[petition]
        steps = [
            (petition, Step(highest=self._peaks.get(petition, 0)), self.thresholds(petition)) for petition in petitions
        ]
        replies = await self._store.apply(steps)
        reached: list[Reached] = []
        damaged: list[str] = []
        for petition, reply in zip(petitions, replies, strict=True):
            if isinstance(reply, Damaged):
                damaged.append(petition)
            elif isinstance(reply, Applied):
                if reply.revision:  # 0: Redis has lost the tally again
                    self._peaks.pop(petition, None)
                reached.extend(reply.unannounced)
        return reached, damaged

    async def left_unannounced(self) -> list[Reached]:
        """Milestones that a crash between PostgreSQL and Kafka left, also of petitions not yet in the catalogue."""
        partition = await self._ownership.partitioner()
        left = await self._ledger.unannounced()
        return [reached for reached in left if partition(reached.petition_id) in self._ownership.partitions]


class MilestoneAnnouncer:
    """Announces each milestone once.

    The Lua call that counted has marked it as reached in Redis; PostgreSQL decides whether it is new; the event goes to
    Kafka; then both are marked as announced. After a crash before PostgreSQL, the batch is redelivered and finds the mark
    in Redis. After a crash before Kafka's acknowledgement or before the marks, the next assignment finds the row without
    ``announced_at``, and publishes the same event with the same id again.

    An announcement leads to mails, which cannot be recalled. So the ledger proves each milestone first: a count in Redis
    may have been raised by hand, or by a forged fact. A milestone that cannot be proved is not announced, its mark in Redis
    is deleted, and `on_unproved` is called with the petition, whose tally has to be rebuilt.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        store: TallyStore,
        producer: EventProducer,
        metrics: TallyMetrics,
        on_unproved: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._ledger, self._store, self._producer, self._metrics = ledger, store, producer, metrics
        self._proof, self.on_unproved = MilestoneProof(ledger=ledger, store=store), on_unproved
        self._announcing = asyncio.Lock()  # batch and watch may find the same milestone

    async def announce(self, milestones: Iterable[Reached]) -> None:
        """Announce the milestones that have not been announced, lowest threshold first.

        Raises:
            asyncpg.PostgresError, aiokafka.errors.KafkaError, redis.exceptions.RedisError, OSError: transient.
        """
        for reached in sorted(milestones, key=lambda item: (item.petition_id, item.threshold)):
            async with self._announcing:
                await self._announce(reached)

    async def _announce(self, reached: Reached) -> None:
        if await self._ledger.is_announced(reached.petition_id, reached.threshold):
            await self._store.mark_announced(reached.petition_id, [reached.threshold])
            return
        if not await self._proof.holds(reached):
            self._metrics.unproved.inc()
            log.error(
                "milestone_unproved", petition=reached.petition_id, threshold=reached.threshold, count=reached.count
            )
            await self._store.forget_milestone(reached.petition_id, reached.threshold)
            self.on_unproved(reached.petition_id)
            return
        recorded = await self._ledger.record_milestone(reached)
        if recorded is not None:
            await failpoint("tally.milestone_recorded")
            await self._producer.publish(MILESTONES_REACHED.name, _milestone_record(recorded))
            await failpoint("tally.milestone_published")
            await self._ledger.mark_announced(recorded)
            await failpoint("tally.milestone_marked")
            self._metrics.milestones.inc()
            log.info("milestone_announced", petition=recorded.petition_id, threshold=recorded.threshold)
        await self._store.mark_announced(reached.petition_id, [reached.threshold])


def _milestone_record(reached: Reached) -> Record:
    event = MilestoneReached(
        petition_id=reached.petition_id,
        threshold=reached.threshold,
        count=reached.count,
        revision=reached.revision,
        reached_at=reached.reached_at,
    )
    headers = event_headers(
        MilestoneReached,
        event_id=milestone_id(reached.petition_id, reached.threshold),
        source=SOURCE,
        subject=reached.petition_id,
        time=reached.reached_at,
    )
    return Record(reached.petition_id.encode(), event.model_dump_json().encode(), headers)
