"""Healing: noticing that Redis lost state, and rebuilding tallies from the ledger.

Contract: a rebuilt tally comes from one snapshot of the ledger, and is swapped in under running traffic only if nothing
newer was counted meanwhile (`Healer`). Every rebuild also updates what depends on it in this process: fences, milestones
and the snapshot on the topic (`Repairs`).

Redis loses state without an error: flushed, restarted from an older file, failed over to a replica that lagged. Three
signs show it: a stored fence below the one to which this process had moved it (`step.lost_state`); no stored fence in a
lane where the ledger has changes before those to count (the tally was deleted before this process had read its fences);
and another Redis than the one in which a partition's counts were last known to be right. The last sign finds what the
others cannot: petitions without a signature since the loss.

Tallies that are wrong for other causes (a value of the wrong type, a fence that is not in the ledger, a count that is not
the sum of its rows) are rebuilt too, one petition at a time. Where the ledger proves less than Redis had, a new epoch
begins, so that subscribers accept the lower revision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import structlog
from redis.asyncio import Redis

from services.tally.counting.announcing.milestones import MilestoneFinder
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.fences import KnownFences
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.ownership import Ownership
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from shared.redis import identity
from shared.runtime.failpoints import failpoint

log = structlog.get_logger(__name__)

_SNAPSHOTS = 20
"""A rebuild needs a newer snapshot whenever another process counted meanwhile; this many in a row are not chance."""


class RebuildOvertaken(ConnectionError):
    """Redis kept counting past every snapshot, or changed its identity during the rebuild. Transient."""


class Healer:
    """Rebuilds tallies, and notices when Redis was replaced by another one."""

    def __init__(self, *, redis: Redis, store: TallyStore, ledger: Ledger, metrics: TallyMetrics) -> None:
        self._redis, self._store, self._ledger, self._metrics = redis, store, ledger, metrics
        self._witnessed: dict[int, str] = {}

    def forget(self) -> None:
        """Forget the witnesses: partitions changed hands, so other processes may have set new ones."""
        self._witnessed.clear()

    async def ensure(self, partitions: Collection[int], partition_of: Callable[[str], int]) -> dict[str, TallyState]:
        """Check that this Redis is the one in which the partitions' counts were last right; if not, rebuild them.

        Returns:
            The rebuilt petitions, with their new states.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient.
        """
        current = await identity(self._redis)
        unread = [partition for partition in partitions if partition not in self._witnessed]
        if unread:
            self._witnessed.update(await self._ledger.witnesses(unread))
        suspect = {partition for partition in partitions if self._witnessed.get(partition) != current}
        if not suspect:
            return {}
        # A partition without a witness was never counted: nothing can be lost, but facts may be under way already.
        lost = suspect.intersection(self._witnessed)
        rebuilt = {}
        for petition_id in await self._ledger.petitions():
            if (partition := partition_of(petition_id)) in suspect:
                cause = "another_redis" if partition in lost else "first_count"
                # Nothing in this Redis is known to be right: stored fences that are not in the ledger are given up.
                rebuilt[petition_id] = await self.rebuild(petition_id, cause=cause, ledger_rules=True)
        if await identity(self._redis) != current:
            raise RebuildOvertaken("Redis was replaced again during the rebuild")
        await failpoint("tally.rebuilt")
        await self._ledger.set_witness(list(suspect), current)
        self._witnessed.update(dict.fromkeys(suspect, current))
        if lost:
            log.warning("redis_state_rebuilt", partitions=sorted(suspect), petitions=len(rebuilt))
        else:
            log.info("redis_first_used", partitions=sorted(suspect), petitions=len(rebuilt))
        return rebuilt

    async def rebuild(
        self, petition_id: str, *, cause: str, force: bool = False, ledger_rules: bool = False, above: int = -1
    ) -> TallyState:
        """Rebuild a petition's tally from the ledger, also under traffic.

        Args:
            petition_id: The petition.
            cause: The cause, for the metric.
            force: Also where Redis has counted more than the ledger has. This begins a new epoch.
            ledger_rules: Give up stored fences that are missing in a snapshot of the ledger taken after they were read. A
                fact is counted only after its row was committed, so such a fence is not from the ledger.
            above: The epoch of a snapshot that is to be taken back: the rebuilt tally gets a higher one.

        Returns:
            The state that is now stored.

        Raises:
            RebuildOvertaken: the stored tally was ahead of every snapshot.
            asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient.
        """
        epoch = 0
        if force or above >= 0:
            epoch = await self._ledger.raise_epoch(petition_id, above=above)
        seen: dict[int, int] = {}
        for _ in range(_SNAPSHOTS):
            state = await self._ledger.state(petition_id)
            state = replace(state, epoch=max(state.epoch, epoch))
            given_up = {lane: fence for lane, fence in seen.items() if fence > state.fences.get(lane, 0)}
            swap = await self._store.swap_in(petition_id, state, force=force, given_up=given_up)
            if swap:
                self._metrics.rebuilds.labels(cause=cause).inc()
                await failpoint("tally.swapped")
                return state
            if ledger_rules:
                seen = swap.above
            if swap.version is not None:
                # The stored tally has more than the ledger proves, and may have been announced: the new epoch takes it back.
                epoch = await self._ledger.raise_epoch(petition_id, above=swap.version[0])
                log.error(
                    "count_taken_back", petition=petition_id, cause=cause, stored=swap.version, rebuilt=state.version
                )
                await failpoint("tally.epoch_raised")
        raise RebuildOvertaken(f"the stored tally of {petition_id} was ahead of {_SNAPSHOTS} snapshots of the ledger")


class Repairs:
    """Rebuilds tallies under the same lock as the batches, and remembers which ones were found to be wrong.

    Args:
        healer: Rebuilds one tally, or all that another Redis has lost.
        ownership: Knows the partition of a petition.
        fences: Updated with a rebuilt tally's fences.
        milestones: Looks for milestones of a rebuilt tally, even if the batch that needed the rebuild fails later.
        snapshots: Publishes a rebuilt tally, whatever was published before.
    """

    def __init__(
        self,
        *,
        healer: Healer,
        ownership: Ownership,
        fences: KnownFences,
        milestones: MilestoneFinder,
        snapshots: SnapshotAnnouncer,
    ) -> None:
        self._healer, self._ownership, self._fences = healer, ownership, fences
        self._milestones, self._snapshots = milestones, snapshots
        self._found: dict[str, str] = {}

    def found(self, petition_ids: Iterable[str], cause: str) -> None:
        """Note wrong tallies, with the cause for the metric: the watch's next round rebuilds them."""
        self._found.update(dict.fromkeys(petition_ids, cause))

    def forget(self) -> None:
        """Partitions changed hands."""
        self._found.clear()
        self._healer.forget()

    async def ensure(self, partitions: Collection[int]) -> None:
        """Rebuild the tallies of these partitions if this is another Redis than before. The caller holds the turn.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient.
        """
        rebuilt = await self._healer.ensure(partitions, await self._ownership.partitioner())
        for petition_id, state in rebuilt.items():
            self._note(petition_id, state)

    async def rebuild(self, petition_id: str, *, cause: str, above: int = -1) -> TallyState:
        """Rebuild one tally. The caller holds the turn. Arguments and errors as those of `Healer.rebuild`."""
        state = await self._healer.rebuild(petition_id, cause=cause, ledger_rules=True, above=above)
        self._note(petition_id, state)
        return state

    async def heal(self, petition_id: str, cause: str, above: int = -1) -> TallyState:
        """Take the turn and rebuild one tally that was found to be wrong.

        Raises:
            RebuildOvertaken, asyncpg.PostgresError, redis.exceptions.RedisError, OSError: transient.
        """
        async with self._fences.turn:
            return await self.rebuild(petition_id, cause=cause, above=above)

    async def rebuild_found(self) -> None:
        """Rebuild the tallies that were found to be wrong; those that fail stay noted. Errors as those of `heal`."""
        for petition_id, cause in list(self._found.items()):
            await self.heal(petition_id, cause)
            self._found.pop(petition_id, None)

    def _note(self, petition_id: str, state: TallyState) -> None:
        self._fences.rebuilt(petition_id, state.fences)
        self._milestones.rebuilt(petition_id, state)
        self._snapshots.rebuilt(petition_id)
