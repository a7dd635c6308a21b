"""The owner's word: what stands on ``tallies.updated`` is what Redis has and the ledger proves, or it is taken back.

Readers take the snapshot with the higher version. That keeps a late, older one from being believed; it would also keep a
wrong one for ever: a snapshot that nobody counted, or one from before PostgreSQL was put back to an older state. So the
owner of a petition reads along. What it has not published itself, and what Redis does not have, is compared with the ledger;
what the ledger does not prove is answered by a snapshot of a new epoch, which stands above it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.store import TallyState, TallyStore
from shared.contract.events import TallyUpdated

log = structlog.get_logger(__name__)

Rebuild = Callable[[str, str, int], Awaitable[TallyState]]
"""Rebuilds a petition's tally: its id, the cause, and the epoch that the new one has to be above; -1 for none."""

_MOST: Final = 10_000
"""Most petitions that wait to be compared. A flood of forged snapshots is answered in portions of this size."""


class OwnersWord:
    """Compares what was announced with what was counted.

    Args:
        store: The tallies.
        rebuild: How a tally is put right.
        metrics: Counts what was taken back.
    """

    def __init__(self, *, store: TallyStore, rebuild: Rebuild, metrics: TallyMetrics) -> None:
        self._store, self._rebuild, self._metrics = store, rebuild, metrics
        self._heard: dict[str, TallyUpdated] = {}

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
