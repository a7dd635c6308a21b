"""Taking back: what stands on ``tallies.updated`` is what Redis has and the ledger proves, or its owner takes it back.

Readers take the snapshot with the higher version. That keeps a late, older one from being believed; it would also keep a
wrong one for ever: a snapshot that nobody counted, or one from before PostgreSQL was put back to an older state. So the
owner of a petition reads along. What it has not published itself, and what Redis does not have, is compared with the ledger;
what the ledger does not prove is answered by a snapshot of a new epoch, which stands above it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog

from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.ownership import Ownership
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from shared.contract.events import TallyUpdated

log = structlog.get_logger(__name__)

Rebuild = Callable[[str, str, int], Awaitable[TallyState]]
"""Rebuilds a petition's tally: its id, the cause, and the epoch that the new one has to be above; -1 for none."""

_MOST: Final = 10_000
"""Most petitions that wait to be compared. A flood of forged snapshots is answered in portions of this size."""


class TakingBack:
    """Compares what was announced with what was counted.

    Args:
        ownership: Which petitions are this process's.
        store: The tallies.
        snapshots: What this process has published itself.
        announced: The newest snapshot of a petition on the topic, as far as known.
        rebuild: How a tally is put right.
        metrics: Counts what was taken back, and what was overtaken.
    """

    def __init__(
        self,
        *,
        ownership: Ownership,
        store: TallyStore,
        snapshots: SnapshotAnnouncer,
        announced: Callable[[str], TallyUpdated | None],
        rebuild: Rebuild,
        metrics: TallyMetrics,
    ) -> None:
        self._ownership, self._store, self._snapshots = ownership, store, snapshots
        self._announced, self._rebuild, self._metrics = announced, rebuild, metrics
        self._heard: dict[str, TallyUpdated] = {}

    def on_overtaken(self, petition_id: str, version: tuple[int, int]) -> None:
        """The topic ends with `version` after a newer snapshot, or with something that is none: put that right."""
        if self._ownership.owns(petition_id):
            self._metrics.snapshots_overtaken.inc()
            log.warning("snapshot_overtaken", petition=petition_id, version=version)
            self._snapshots.overtaken(petition_id, version)

    def on_announced(self, snapshot: TallyUpdated, value: bytes) -> None:
        """A snapshot stands on the topic. If this process owns its petition and has not written it, it is compared."""
        if self._ownership.owns(snapshot.petition_id) and not self._snapshots.is_ours(
            snapshot.petition_id, snapshot.version, value
        ):
            self.heard(snapshot)

    def compare(self, petition_ids: Iterable[str]) -> None:
        """Compare what was last announced of these petitions with what is counted, at the next `put_right`."""
        for petition_id in petition_ids:
            if (announced := self._announced(petition_id)) is not None:
                self.heard(announced)

    def heard(self, snapshot: TallyUpdated) -> None:
        """A snapshot stands on the topic that this process did not publish. It is compared with the next `put_right`."""
        before = self._heard.get(snapshot.petition_id)
        if (before is None and len(self._heard) < _MOST) or (before is not None and snapshot.version >= before.version):
            self._heard[snapshot.petition_id] = snapshot

    def forget(self) -> None:
        """Other petitions are this process's now."""
        self._heard.clear()

    async def put_right(self) -> None:
        """Compare what was heard, and take back what was not counted.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: try again; nothing is forgotten.
        """
        heard, self._heard = self._heard, {}
        if not heard:
            return
        try:
            await self._compare(heard)
        except BaseException:
            self._heard = {**heard, **self._heard}
            raise

    async def _compare(self, heard: Mapping[str, TallyUpdated]) -> None:
        stored = await self._store.tallies(list(heard))
        for petition_id, announced in heard.items():
            counted = stored.get(petition_id)
            if counted is None or not agrees(announced, counted.version, counted.count, counted.countries):
                await self._answer(announced)

    async def _answer(self, announced: TallyUpdated) -> None:
        # Redis may have lost what was announced. The ledger has not: it is asked first.
        petition_id = announced.petition_id
        proved = await self._rebuild(petition_id, "announced", -1)
        if agrees(announced, proved.version, proved.count, proved.countries):
            return
        # Counted meanwhile, or never: the ledger does not hold what was announced, so its owner begins a new epoch.
        answer = await self._rebuild(petition_id, "taken_back", max(announced.epoch, proved.epoch))
        self._metrics.taken_back.inc()
        log.error(
            "snapshot_taken_back",
            petition=petition_id,
            announced={"count": announced.count, "version": announced.version},
            proved={"count": answer.count, "version": answer.version},
        )


def agrees(announced: TallyUpdated, version: tuple[int, int], count: int, countries: Mapping[str, int]) -> bool:
    """Whether what was announced is no more than what was counted: older, or the same in every number."""
    if announced.version != version:
        return announced.version < version
    return announced.count == max(0, count) and dict(announced.countries) == dict(countries)
