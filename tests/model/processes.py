"""A verify and a tally process: the real code, wired as in their `app.py`, on the simulated log."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.handlers import TallyHandler
from services.tally.counting.handlers import decode as decode_fact
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.verify.handlers import VerifyHandler
from services.verify.metrics import VerifyMetrics
from services.verify.store import VerifyStore
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.postgres import Database
from shared.runtime.failures import is_transient
from tests.model.log import Consumer, Group, LogProducer
from tests.model.steps import StepActor, round_done
from tests.support.signing import PEPPER
from tests.support.turns import TurnLock, turn


class _CaughtUp(CatalogueFeed):
    """A catalogue that is already complete."""

    def __init__(self) -> None:
        pass

    async def catch_up(self) -> None:
        return None


class VerifyProcess:
    """A verify process: it consumes."""

    def __init__(self, *, group: Group, database: Database, producer: LogProducer, catalogue: Catalogue) -> None:
        self.handler = VerifyHandler(
            catalogue=catalogue,
            feed=_CaughtUp(),
            store=VerifyStore(database),
            producer=producer,
            metrics=VerifyMetrics(CollectorRegistry()),
            pepper=PEPPER,
        )
        self.consumer = Consumer(group, decode=self.handler.decode, process=self.handler.process)
        self.actors = [StepActor(self.consumer.run)]


class TallyProcess:
    """A tally process: it consumes, watches and publishes snapshots concurrently."""

    def __init__(
        self, *, group: Group, database: Database, redis: Redis, producer: LogProducer, catalogue: Catalogue
    ) -> None:
        metrics = TallyMetrics(CollectorRegistry())
        store, ledger = TallyStore(redis), Ledger(database)
        self._snapshots = SnapshotAnnouncer(store=store, producer=producer, metrics=metrics, interval_seconds=1)
        milestones = MilestoneAnnouncer(ledger=ledger, store=store, producer=producer, metrics=metrics)
        milestones._announcing = TurnLock()  # type: ignore[assignment]
        self.handler = TallyHandler(
            catalogue=catalogue,
            store=store,
            ledger=ledger,
            healer=Healer(redis=redis, store=store, ledger=ledger, metrics=metrics),
            milestones=milestones,
            snapshots=self._snapshots,
            producer=producer,
            metrics=metrics,
        )
        self.handler.fences.turn = TurnLock()  # type: ignore[assignment]
        self.consumer = Consumer(
            group,
            decode=decode_fact,
            process=self.handler.process,
            on_assigned=self.handler.on_assigned,
            on_revoked=self.handler.on_revoked,
        )
        self.actors = [StepActor(self.consumer.run), StepActor(self._watch), StepActor(self._tell)]

    def wait_five_minutes(self) -> None:
        """Wait so long that everything is published again."""
        self.handler.watching.told_all_at -= 300

    async def _watch(self) -> None:
        while True:
            await turn()  # the sleep between two rounds
            try:
                if self.handler.owned:
                    await self.handler.watching.look_after()  # one round of the watch
            except Exception as error:
                if not is_transient(error):
                    raise
            else:
                round_done()

    async def _tell(self) -> None:
        while True:
            await turn()  # the sleep between two rounds
            try:
                await self._snapshots.flush()
            except Exception as error:
                if not is_transient(error):
                    raise
            else:
                round_done()
