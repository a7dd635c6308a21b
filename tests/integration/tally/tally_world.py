"""tally's real code in a world of failures, run by test_tally_protocol, one seed after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar

from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.tally.counting.announcing.milestones import MilestoneAnnouncer
from services.tally.counting.announcing.snapshots import SnapshotAnnouncer
from services.tally.counting.audit import audit
from services.tally.counting.handlers import TallyHandler
from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import Step
from services.tally.counting.tally import Applied, Damaged, NotApplied, Reached, Swap, TallyState
from shared import redis as shared_redis
from shared.contract.catalogue import Catalogue
from shared.contract.events import CountedFact, MilestoneReached, TallyUpdated
from shared.contract.topics import MILESTONES_REACHED, TALLIES_UPDATED
from shared.kafka.records.record import Record
from shared.postgres import Database
from shared.runtime.failures import is_transient
from tests.integration.tally.tallying import put_into_ledger
from tests.support.signing import FERRY, PATH, MemoryProducer, as_read, fact, petition
from tests.support.turns import Actor, TurnLock, turn

PETITIONS = (PATH, FERRY)
LANES = 3
THRESHOLDS = [2, 4, 7]


class Turned(TallyStore):
    """The real store; others may go on before each of its calls."""

    async def apply(self, steps: Sequence[tuple[str, Step, Sequence[int]]]) -> list[Applied | NotApplied | Damaged]:
        await turn()
        return await super().apply(steps)

    async def mark_announced(self, petition_id: str, thresholds: Any) -> None:
        await turn()
        await super().mark_announced(petition_id, thresholds)

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        await turn()
        return await super().tallies(petition_ids)

    async def swap_in(
        self, petition_id: str, state: TallyState, *, force: bool = False, given_up: Mapping[int, int] | None = None
    ) -> Swap:
        await turn()
        return await super().swap_in(petition_id, state, force=force, given_up=given_up)


class TurnedLedger(Ledger):
    """The real ledger, the same way."""

    async def petitions(self) -> list[str]:
        await turn()
        return await super().petitions()

    async def state(self, petition_id: str) -> TallyState:
        await turn()
        return await super().state(petition_id)

    async def has_earlier(self, petition_id: str, first: Mapping[int, int]) -> bool:
        await turn()
        return await super().has_earlier(petition_id, first)

    async def has_other(self, petition_id: str, first: Mapping[int, int]) -> bool:
        await turn()
        return await super().has_other(petition_id, first)

    async def lane_ends(self, lanes: Sequence[int]) -> dict[int, int]:
        await turn()
        return await super().lane_ends(lanes)

    async def not_there(self, fences: Sequence[tuple[str, int, int]]) -> set[tuple[str, int, int]]:
        await turn()
        return await super().not_there(fences)

    async def ever_counted(self, petition_id: str) -> tuple[int, int]:
        await turn()
        return await super().ever_counted(petition_id)

    async def record_milestone(self, reached: Reached) -> Reached | None:
        await turn()
        return await super().record_milestone(reached)

    async def unannounced(self) -> list[Reached]:
        await turn()
        return await super().unannounced()

    async def mark_announced(self, reached: Reached) -> None:
        await turn()
        await super().mark_announced(reached)

    async def witnesses(self, partitions: Sequence[int]) -> dict[int, str]:
        await turn()
        return await super().witnesses(partitions)

    async def set_witness(self, partitions: Sequence[int], identity: str) -> None:
        await turn()
        await super().set_witness(partitions, identity)


async def turned_identity(redis: Redis) -> str:
    await turn()
    return await shared_redis.identity(redis)


class Instance:
    """A tally process: it consumes, and it watches, until it is killed or its commit is refused."""

    def __init__(self, world: World) -> None:
        self.world, self.generation = world, world.generation
        metrics = TallyMetrics(CollectorRegistry())
        store, ledger = Turned(world.redis), TurnedLedger(world.database)
        self.snapshots = SnapshotAnnouncer(store=store, producer=world.producer, metrics=metrics, interval_seconds=1)
        milestones = MilestoneAnnouncer(ledger=ledger, store=store, producer=world.producer, metrics=metrics)
        milestones._announcing = TurnLock()  # type: ignore[assignment]
        self.handler = TallyHandler(
            catalogue=world.catalogue,
            store=store,
            ledger=ledger,
            healer=Healer(redis=world.redis, store=store, ledger=ledger, metrics=metrics),
            milestones=milestones,
            snapshots=self.snapshots,
            producer=world.producer,
            metrics=metrics,
        )
        self.handler.fences.turn = TurnLock()  # type: ignore[assignment]
        self.rounds = 0
        self.actors = [Actor(self._consume), Actor(self._watch)]

    async def _consume(self) -> None:
        world = self.world
        await self.handler.on_assigned({0})
        position = world.committed
        while True:
            await turn()
            batch = world.topic[position : position + world.random.randint(1, 5)]
            if batch:
                if not await self._count(batch, position):
                    continue
                position += len(batch)
                await turn()
            if self.generation != world.generation:
                return  # its commit is refused
            world.committed = position

    async def _count(self, batch: list[CountedFact], position: int) -> bool:
        try:
            await self.handler.process(as_read(*batch))
        except Exception as error:
            if not is_transient(error):
                raise
            return False  # held, and tried again
        return True

    async def _watch(self) -> None:
        while True:
            await turn()
            try:
                await self.handler.watching.look_after()  # one round of the watch, without its sleep
                await self.snapshots.flush()
            except Exception as error:
                if not is_transient(error):
                    raise
            else:
                self.rounds += 1

    async def kill(self) -> None:
        for actor in self.actors:
            await actor.kill()


class World:
    """One run: a ledger that grows, facts on their way, instances, and accidents, as the seed has it."""

    weights: ClassVar[dict[str, int]] = {
        "step": 77, "decide": 8, "publish": 6, "new_owner": 2, "kill_one": 3, "save": 2, "lose": 2
    }  # fmt: skip

    def __init__(self, seed: int, redis: Redis, database: Database) -> None:
        self.random, self.redis, self.database = Random(seed), redis, database
        self.catalogue = Catalogue()
        for name in PETITIONS:
            self.catalogue.apply(petition(name, milestones=THRESHOLDS))
        self.producer = MemoryProducer(before=self._before)
        self.quiet = False
        self.generation = 0
        self.committed = 0
        self.topic: list[CountedFact] = []
        self.ledger: list[list[CountedFact]] = [[] for _ in range(LANES)]
        self.published = [0] * LANES
        self.instances: list[Instance] = []
        self.saved: dict[str, dict[Any, Any]] = {}

    async def _before(self, _: str, __: Record) -> None:
        await turn()
        if not self.quiet and self.random.random() < 0.1:
            raise KafkaConnectionError("away")

    # ------------------------------------------------------------------------------------- what verify does meanwhile

    async def decide(self) -> None:
        """Verify appends to a lane, and publishes later."""
        lane = self.random.randrange(LANES)
        rows = self.ledger[lane]
        for _ in range(self.random.randint(1, 3)):
            name = self.random.choice(PETITIONS)
            standing = sum(one.delta for one in rows if one.petition_id == name)  # type: ignore[attr-defined]
            delta = -1 if standing and self.random.random() < 0.3 else 1
            rows.append(fact(len(rows) + 1, delta, lane=lane, petition_id=name, country=self.random.choice("ABC") * 2))
            await put_into_ledger(self.database, rows[-1])

    def publish(self) -> None:
        """Facts reach the topic in the order of their lane; what was published may be published again."""
        lane = self.random.randrange(LANES)
        done = self.published[lane]
        start = self.random.randint(max(0, done - 4), done) if self.random.random() < 0.3 else done
        end = min(len(self.ledger[lane]), done + self.random.randint(0, 3))
        self.topic += self.ledger[lane][start:end]
        self.published[lane] = max(done, end)

    # --------------------------------------------------------------------------------------------------- accidents

    def new_owner(self) -> None:
        """Another instance takes over; the one before does not know yet."""
        self.generation += 1
        self.instances.append(Instance(self))

    async def kill_one(self) -> None:
        victim = self.random.choice(self.instances)
        self.instances.remove(victim)
        await victim.kill()
        if not any(one.generation == self.generation for one in self.instances):
            self.new_owner()

    async def save(self) -> None:
        """What a Redis that starts again, or a replica that lags, will have."""
        self.saved = {str(key): await self.redis.hgetall(key) for key in await self.redis.keys("tally:*")}

    async def lose(self) -> None:
        """Redis returns with older data, or empty, and with a new identity."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            if self.random.random() < 0.6:
                for key, fields in self.saved.items():
                    pipe.hset(key, mapping=fields)
            await pipe.execute()

    # --------------------------------------------------------------------------------------------------------- runs

    async def step(self) -> None:
        """Some instance goes on, mostly with its batch."""
        busy = [one for one in self.instances if not one.actors[0].ended]
        one = self.random.choice(busy or self.instances)
        await one.actors[int(one not in busy or self.random.random() < 0.25)].step()

    async def run(self) -> list[str]:
        """Returns what is wrong in the end."""
        self.new_owner()
        try:
            for _ in range(200):
                (happening,) = self.random.choices([*self.weights], [*self.weights.values()])
                done = getattr(self, happening)()
                if done is not None:
                    await done
            return await self._settle()
        finally:
            for one in self.instances:
                await one.kill()

    async def _settle(self) -> list[str]:
        """No more failures: all facts are published, a last owner counts them, the zombies end. Then check."""
        self.quiet = True
        while any(done < len(rows) for done, rows in zip(self.published, self.ledger, strict=True)):
            self.publish()
        self.new_owner()
        for _ in range(3_000):
            if self.committed == len(self.topic) and all(one.actors[0].ended for one in self.instances[:-1]):
                break
            await self.step()
        else:
            return ["it never came to an end"]
        for one in self.instances:
            rounds = one.rounds
            while one.rounds < rounds + 2:  # the one it may be in the middle of, and one after all that happened
                await self.random.choice([actor for actor in one.actors if not actor.ended]).step()
        return await self._wrong()

    async def _wrong(self) -> list[str]:
        store, ledger = TallyStore(self.redis), Ledger(self.database)
        wrong = []
        for found in await audit(store, ledger, PETITIONS):
            if not found.right or found.beyond:
                wrong.append(f"{found}")
            if await store.state(found.petition_id) != await ledger.state(found.petition_id):
                wrong.append(f"{found.petition_id} is not what the ledger says")
            wrong += self._wrong_announcements(found.petition_id, found.counted)
        if await ledger.unannounced():
            wrong.append("a milestone was recorded and not announced")
        return wrong

    def _wrong_announcements(self, petition_id: str, count: int) -> list[str]:
        key = petition_id.encode()
        told = {
            (MilestoneReached.model_validate_json(one.value or b"").threshold, one.value)
            for one in self.producer.on(MILESTONES_REACHED.name)
            if one.key == key
        }
        thresholds = [threshold for threshold, _ in told]
        wrong = []
        if len(set(thresholds)) != len(told):
            wrong.append(f"two different announcements of one milestone of {petition_id}")
        if missing := {threshold for threshold in THRESHOLDS if threshold <= count} - set(thresholds):
            wrong.append(f"never announced for {petition_id}: {missing}")
        snapshots = [
            TallyUpdated.model_validate_json(one.value or b"")
            for one in self.producer.on(TALLIES_UPDATED.name)
            if one.key == key
        ]
        newest = max(snapshots, key=lambda one: one.revision)
        if newest.count != count:
            wrong.append(f"subscribers have {newest.count} for {petition_id}, not {count}")
        return wrong
