"""What tally tells other services: milestones, each once, and snapshots, coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.proof import MilestoneProof
from services.tally.counting.store import Reached, TallyStore
from shared.contract.events import MilestoneReached, TallyUpdated
from shared.contract.identity import milestone_id
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

SOURCE: Final = "/groundswell/tally"


class MilestoneAnnouncer:
    """Announces each milestone once.

    Redis has it as reached (from the Lua call that counted), PostgreSQL decides whether it is the first time, Kafka gets
    the event, then both are marked. Killed before PostgreSQL: the batch comes again and finds the mark in Redis. Killed
    before Kafka acknowledged, or before the marks: the row without ``announced_at`` is found at the next assignment, and
    the same event, with the same id, is published again.

    What is announced leads to mails that nobody can call back. So each milestone is proved by the ledger first: a count in
    Redis may have been raised by hand, or by a fact that nobody decided. Where it cannot be proved, nothing is announced,
    Redis forgets the mark, and `on_unproved` is called with the petition, whose tally has to be rebuilt.
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
        self._announcing = asyncio.Lock()  # the batch and the watch may have found the same milestone

    async def announce(self, milestones: Iterable[Reached]) -> None:
        """Announce what has not been announced, lowest threshold first."""
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


@dataclass(frozen=True, slots=True)
class Published:
    """What this process has last put on the topic about a petition."""

    version: tuple[int, int]
    value: bytes | None = None
    """The record's value; None if this process only knows that the version is there."""


class SnapshotAnnouncer:
    """Publishes the newest snapshot of every petition that changed, at most once per interval and petition.

    A crash loses only which petitions had changed; the next owner of a partition publishes all of its petitions.
    """

    def __init__(
        self,
        *,
        store: TallyStore,
        producer: EventProducer,
        metrics: TallyMetrics,
        interval_seconds: float,
        on_damaged: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        self._store, self._producer, self._metrics = store, producer, metrics
        self._interval, self.on_damaged = interval_seconds, on_damaged
        self._changed: set[str] = set()
        self._published: dict[str, Published] = {}

    def changed(self, petition_ids: Iterable[str]) -> None:
        """These petitions have a new count."""
        self._changed.update(petition_ids)

    def forget(self) -> None:
        """Partitions changed hands: another process may have published since."""
        self._published.clear()

    def rebuilt(self, petition_id: str) -> None:
        """The petition's tally was put right: whatever was published of it, the next snapshot is published."""
        self._published.pop(petition_id, None)
        self._changed.add(petition_id)

    def overtaken(self, petition_id: str, version: tuple[int, int]) -> None:
        """The topic ends with an older snapshot than it should: publish again, if Redis has a newer one than that."""
        self._published[petition_id] = Published(version)
        self._changed.add(petition_id)

    def is_ours(self, petition_id: str, version: tuple[int, int], value: bytes) -> bool:
        """Whether a snapshot on the topic is what this process has published, or older than that."""
        published = self._published.get(petition_id)
        return published is not None and (version < published.version or value == published.value)

    def tell_again(self) -> None:
        """What was published may go out once more, the same or newer."""
        self._published = {
            petition_id: Published((published.version[0], published.version[1] - 1))
            for petition_id, published in self._published.items()
        }

    async def run(self) -> None:
        """Publish, for ever; failures of Kafka or Redis only delay."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.flush()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._metrics.snapshots_failed.inc()
                log.warning("snapshots_delayed", cause=type(error).__name__)

    async def last_flush(self) -> None:
        """Publish what is left when the process stops; if that fails, the partitions' next owner does it."""
        try:
            await self.flush()
        except Exception as error:
            if not is_transient(error):
                raise
            self._metrics.snapshots_failed.inc()
            log.info("snapshots_left_to_next_owner", cause=type(error).__name__)

    async def flush(self) -> None:
        """Publish the snapshots of all petitions that changed since the last time."""
        if not self._changed:
            return
        petition_ids, self._changed = sorted(self._changed), set()
        try:
            snapshots = await self._store.tallies(petition_ids)
            # A lower version than one that went out means that Redis has just lost its state. Healing marks the
            # petition as changed again; until then subscribers keep the right number.
            newer = {
                petition_id: (tally, _snapshot_record(tally))
                for petition_id, tally in snapshots.items()
                if petition_id not in self._published or tally.version > self._published[petition_id].version
            }
            await failpoint("tally.snapshots_read")
            await self._producer.publish_in_order(TALLIES_UPDATED.name, [record for _, record in newer.values()])
            await failpoint("tally.snapshots_published")
        except BaseException:
            self._changed.update(petition_ids)
            raise
        self._published.update(
            {petition_id: Published(tally.version, record.value) for petition_id, (tally, record) in newer.items()}
        )
        self._metrics.snapshots.inc(len(newer))
        if len(snapshots) < len(petition_ids):
            self.on_damaged(set(petition_ids).difference(snapshots))


def _snapshot_record(tally: TallyUpdated) -> Record:
    epoch = f"{tally.epoch}/" if tally.epoch else ""
    headers = event_headers(
        TallyUpdated,
        event_id=f"{tally.petition_id}/{epoch}{tally.revision}",
        source=SOURCE,
        subject=tally.petition_id,
        time=tally.updated_at,
    )
    return Record(tally.petition_id.encode(), tally.model_dump_json().encode(), headers)
