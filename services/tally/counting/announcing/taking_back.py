"""Taking back: the owner of a petition replaces snapshots on ``tallies.updated`` that the ledger does not prove.

Readers accept the snapshot with the higher version. So a late, older one is ignored; but a wrong one would also stay for
ever: a forged snapshot, or one from before PostgreSQL was restored to an older state. So the owner of a petition reads the
topic too. It compares snapshots that it has not published itself with Redis, and where Redis does not have them, with the
ledger. One that the ledger does not prove is replaced by a snapshot of a new, higher epoch.
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
"""Rebuilds a petition's tally; called with its id, the cause, and the epoch that the new one must exceed (-1: none)."""

_MOST: Final = 10_000
"""Most petitions that wait for comparison. A flood of forged snapshots is answered in portions of this size."""


class TakingBack:
    """Compares announced snapshots with the counts.

    Args:
        ownership: Knows the petitions of this process.
        store: The tallies.
        snapshots: Knows what this process has published itself.
        announced: Returns the newest known snapshot of a petition on the topic.
        rebuild: Rebuilds a tally.
        metrics: The counting metrics.
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
        """Handle a topic that ends with the older `version` after a newer one, or with an invalid snapshot."""
        if self._ownership.owns(petition_id):
            self._metrics.snapshots_overtaken.inc()
            log.warning("snapshot_overtaken", petition=petition_id, version=version)
            self._snapshots.overtaken(petition_id, version)

    def on_announced(self, snapshot: TallyUpdated, value: bytes) -> None:
        """Handle a snapshot on the topic. If this process owns its petition and has not published it, it is compared."""
        if self._ownership.owns(snapshot.petition_id) and not self._snapshots.is_ours(
            snapshot.petition_id, snapshot.version, value
        ):
            self.heard(snapshot)

    def compare(self, petition_ids: Iterable[str]) -> None:
        """Let the next `put_right` compare the last announced snapshots of these petitions with their counts."""
        for petition_id in petition_ids:
            if (announced := self._announced(petition_id)) is not None:
                self.heard(announced)

    def heard(self, snapshot: TallyUpdated) -> None:
        """Note a snapshot that this process did not publish; the next `put_right` compares it."""
        before = self._heard.get(snapshot.petition_id)
        if (before is None and len(self._heard) < _MOST) or (before is not None and snapshot.version >= before.version):
            self._heard[snapshot.petition_id] = snapshot

    def forget(self) -> None:
        """Forget what was noted: this process owns other petitions now."""
        self._heard.clear()

    async def put_right(self) -> None:
        """Compare the noted snapshots, and take back those that the ledger does not prove.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient; nothing is forgotten.
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
        # Redis may have lost what was announced, so it is first rebuilt from the ledger.
        petition_id = announced.petition_id
        proved = await self._rebuild(petition_id, "announced", -1)
        if agrees(announced, proved.version, proved.count, proved.countries):
            return
        # The ledger does not prove what was announced, so a new epoch takes it back.
        answer = await self._rebuild(petition_id, "taken_back", max(announced.epoch, proved.epoch))
        self._metrics.taken_back.inc()
        log.error(
            "snapshot_taken_back",
            petition=petition_id,
            announced={"count": announced.count, "version": announced.version},
            proved={"count": answer.count, "version": answer.version},
        )


def agrees(announced: TallyUpdated, version: tuple[int, int], count: int, countries: Mapping[str, int]) -> bool:
    """Whether the ledger or Redis confirms a snapshot: its version is lower, or the same with the same numbers."""
    if announced.version != version:
        return announced.version < version
    return announced.count == max(0, count) and dict(announced.countries) == dict(countries)
