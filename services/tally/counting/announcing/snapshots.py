"""Snapshots: the newest tally of each changed petition is published to ``tallies.updated``, coalesced.

Contract: at most one snapshot per interval and petition, and never one that is older than what this process has published.
A crash only loses the list of changed petitions; the next owner of a partition publishes snapshots of all its petitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from services.tally.counting.announcing import SOURCE
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """The last snapshot of a petition that this process has published."""

    version: tuple[int, int]
    value: bytes | None = None
    """The record's value; None if this process only knows that the version is on the topic."""


class SnapshotAnnouncer:
    """Publishes the newest snapshot of each changed petition, at most once per interval and petition."""

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
        """Note petitions with a new count."""
        self._changed.update(petition_ids)

    def forget(self) -> None:
        """Forget what was published: partitions changed hands, so another process may have published since."""
        self._published.clear()

    def rebuilt(self, petition_id: str) -> None:
        """Note a rebuilt tally: its next snapshot is published, whatever was published before."""
        self._published.pop(petition_id, None)
        self._changed.add(petition_id)

    def overtaken(self, petition_id: str, version: tuple[int, int]) -> None:
        """Note that the topic ends with an older snapshot: publish again, if Redis has a newer version than that."""
        self._published[petition_id] = Published(version)
        self._changed.add(petition_id)

    def is_ours(self, petition_id: str, version: tuple[int, int], value: bytes) -> bool:
        """Whether a snapshot on the topic is what this process has published, or older than that."""
        published = self._published.get(petition_id)
        return published is not None and (version < published.version or value == published.value)

    def tell_again(self) -> None:
        """Allow every snapshot to be published once more, with the same or a newer version."""
        self._published = {
            petition_id: Published((published.version[0], published.version[1] - 1))
            for petition_id, published in self._published.items()
        }

    async def run(self) -> None:
        """Publish for ever; failures of Kafka or Redis only delay it."""
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
        """Publish the remaining snapshots when the process stops; if that fails, the partitions' next owner does it."""
        try:
            await self.flush()
        except Exception as error:
            if not is_transient(error):
                raise
            self._metrics.snapshots_failed.inc()
            log.info("snapshots_left_to_next_owner", cause=type(error).__name__)

    async def flush(self) -> None:
        """Publish the snapshots of all petitions that changed since the last call."""
        if not self._changed:
            return
        petition_ids, self._changed = sorted(self._changed), set()
        try:
            snapshots = await self._store.tallies(petition_ids)
            # A lower version than the published one means that Redis has just lost its state. Healing marks the
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
