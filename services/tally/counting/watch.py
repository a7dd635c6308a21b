"""The watch: periodic work, once a second, for petitions that no batch touches.

Contract: one round checks that Redis is still the same one, rebuilds tallies that were found to be wrong, answers foreign
snapshots on ``tallies.updated``, and announces milestones that a crash, a rebuild or a change of the petition left behind.
A round that fails forgets nothing: the next one repeats its work.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from services.tally.counting.announcing.milestones import MilestoneAnnouncer, MilestoneFinder
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.announcing.taking_back import TakingBack
from services.tally.counting.fences import KnownFences
from services.tally.counting.healing import Repairs
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.ownership import Ownership
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 1.0
"""Longest time for which a loss of Redis goes unnoticed while there are no signatures."""

_EPOCHS_SINCE: Final = timedelta(days=1)
"""Earlier epochs were published by the processes before this one; a day covers clocks that are wrong."""

_TELL_AGAIN_SECONDS = 300.0
"""A zombie may have recorded a milestone and died, or published an older snapshot after ours while no process read along.
So at this interval every petition's snapshot is published again, and unannounced milestones are looked for, as at
assignment."""


class Watch:
    """The periodic work for the petitions that this process owns."""

    def __init__(
        self,
        *,
        ownership: Ownership,
        fences: KnownFences,
        repairs: Repairs,
        finder: MilestoneFinder,
        milestones: MilestoneAnnouncer,
        snapshots: SnapshotAnnouncer,
        taking_back: TakingBack,
        ledger: Ledger,
        metrics: TallyMetrics,
    ) -> None:
        self._ownership, self._fences, self._repairs = ownership, fences, repairs
        self._finder, self._milestones = finder, milestones
        self._snapshots, self._taking_back = snapshots, taking_back
        self._ledger, self._metrics = ledger, metrics
        self._epochs_seen = datetime.now(UTC) - _EPOCHS_SINCE
        self._just_assigned = False
        self.told_all_at = time.monotonic()

    def assigned(self, partitions: set[int]) -> None:
        """Note newly assigned partitions: the next round looks at all petitions of this process."""
        self._just_assigned = bool(partitions)

    async def run(self) -> None:
        """Run a round every second, for ever. A transient error ends only its round.

        Raises:
            Exception: a bug.
        """
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if not self._ownership.partitions:
                continue
            try:
                await self.look_after()
            except Exception as error:
                if not is_transient(error):
                    raise
                self._metrics.watch_failures.labels(cause=type(error).__name__).inc()
                log.warning("watch_delayed", cause=type(error).__name__)

    async def look_after(self) -> None:
        """Run one round.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, aiokafka.errors.KafkaError, redis.exceptions.RedisError, OSError:
                transient; the next round repeats the work.
        """
        async with self._fences.turn:
            await self._repairs.ensure(self._ownership.partitions)
        await self._repairs.rebuild_found()
        await self._taking_back.put_right()
        await self._tell_of_epochs()
        await self._look_for_milestones()

    async def _tell_of_epochs(self) -> None:
        """Publish the snapshots of petitions for which another process, such as an operator's command, began an epoch."""
        for petition, raised_at in (await self._ledger.epochs_raised_since(self._epochs_seen)).items():
            self._epochs_seen = max(self._epochs_seen, raised_at)
            if self._ownership.owns(petition):
                self._snapshots.changed([petition])

    async def _look_for_milestones(self) -> None:
        """Look at the petitions that have changed; after an assignment, and every `_TELL_AGAIN_SECONDS`, at all."""
        if time.monotonic() - self.told_all_at >= _TELL_AGAIN_SECONDS:
            self._snapshots.tell_again()
            self._just_assigned = True
        changed = self._finder.take_changed()
        assigned, self._just_assigned = self._just_assigned, False
        try:
            mine = [petition for petition, owned in (await self._ownership.petitions()).items() if owned]
            evaluate = sorted(mine if assigned else changed.intersection(mine))
            async with self._fences.turn:
                reached, damaged = await self._finder.find(evaluate)
            self._repairs.found(damaged, "damaged")
            self._snapshots.changed(evaluate)
            if assigned:
                self._taking_back.compare(mine)
                reached += await self._finder.left_unannounced()
            await self._milestones.announce(reached)
            if assigned:
                self.told_all_at = time.monotonic()
        except BaseException:
            self._finder.changed(changed)
            self._just_assigned = self._just_assigned or assigned
            raise
