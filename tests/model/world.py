"""The world of one program: the log, the processes, and the events that may happen to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import asyncpg
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.tally.counting.healing import Healer
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from shared.contract.catalogue import Catalogue
from shared.contract.events import ChangeCommand, Command, ConfirmCommand, Policy, SignCommand
from shared.contract.topics import (
    MILESTONES_REACHED,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
)
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.postgres import Database
from shared.runtime.failures import is_transient
from tests.model.log import Group, Log, LogProducer
from tests.model.processes import TallyProcess, VerifyProcess
from tests.model.steps import Fault, StepActor, SteppedDatabase, Where, all_at_rest
from tests.support.signing import FERRY, NOON, PATH, change, event_id_of, petition, sign, signer_key_of

SUBMITTED, VERIFIED = SIGNATURES_SUBMITTED.name, SIGNATURES_VERIFIED.name
REJECTED, TALLIES, MILESTONES = SIGNATURES_REJECTED.name, TALLIES_UPDATED.name, MILESTONES_REACHED.name

PETITIONS: Final = (PATH, FERRY)
"""Two petitions, one in each partition of the facts. Signatures of the second need a confirmation."""

MOST_PROCESSES: Final = 3
"""Processes of a service at most: an owner, one that has just lost its partitions, and one that lost them long ago."""

Service = Literal["verify", "tally"]
Afterwards = Literal["confirmed", "not confirmed", "earlier again"]
"""What follows a signature at once: its confirmation, nothing, or a client's retry."""
Regrouping = Literal["all join", "one is late", "one more", "one hears of it"]
"""The group divides the partitions among all its members, without one that was too slow to join, or with one more; or one that
lost its partitions notices it, perhaps during a batch that it could not finish in time."""
Accident = Fault | Literal["kill"]


class Violation(AssertionError):
    """An invariant is violated."""


@dataclass(frozen=True)
class Parts:
    """The real PostgreSQL and Redis under the processes."""

    database: Database
    connection: asyncpg.Connection
    """Reads the state, apart from the processes' pool."""
    redis: Redis
    stepped_redis: Redis

    async def empty(self) -> None:
        """Restore the initial state."""
        await self.connection.execute(
            "DELETE FROM ledger; DELETE FROM signatures; DELETE FROM erasures; DELETE FROM milestones; DELETE FROM redis_witness"
        )
        await self.redis.flushdb()


class World:
    """The whole world. Each method is one event."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.log = Log({SUBMITTED: 2, VERIFIED: 2, REJECTED: 2, TALLIES: 2, MILESTONES: 2})
        self._producer = LogProducer(self.log)
        self.database = SteppedDatabase(parts.database)
        self.thresholds: dict[str, list[int]] = {PATH: [2, 4, 6, 9], FERRY: [1, 3, 5]}
        self._catalogue = Catalogue()
        for petition_id in PETITIONS:
            self._catalogue.apply(self._petition(petition_id))
        self.verify_group, self.tally_group = Group(self.log, SUBMITTED), Group(self.log, VERIFIED)
        self.verifies: list[VerifyProcess] = []
        self.tallies: list[TallyProcess] = []
        self.operators: list[StepActor] = []
        self.signed: list[tuple[SignCommand, bytes]] = []
        """Every sign command and its key."""
        self.added: dict[str, set[int]] = {petition_id: set() for petition_id in PETITIONS}
        """Thresholds that a petition got later."""
        self.losses = 0
        self.grown = False
        self._saved: dict[str, dict[Any, Any]] = {}

    # ----------------------------------------------------------------------------------------------- signers and ingest

    def sign(self, again: int | None, petition_id: str, country: str, then: Afterwards) -> None:
        """A new signer signs, or the signer of an earlier signature, counted back from the last, signs again."""
        number = len(self.signed) + 1
        email: dict[str, Any] = {}
        if again is not None and self.signed:
            before, _ = self._signed(again)
            petition_id, email = before.petition_id, {"email": before.email}
        at = NOON + timedelta(seconds=20 * number)
        command = sign(number, petition_id=petition_id, country=country, at=at, **email)
        self.signed.append((command, signer_key_of(command).hex.encode()))
        self._submit(*self.signed[-1])
        if then == "confirmed" and petition_id == FERRY:
            self.change(0, ConfirmCommand)
        elif then == "earlier again":
            self.retry(0 if again is None else again + 1)

    def retry(self, which: int) -> None:
        """A client repeats an earlier request, counted back from the last."""
        command, key = self._signed(which)
        later = command.submitted_at + timedelta(hours=1)
        self._submit(command.model_copy(update={"submitted_at": later}), key)

    def change(self, which: int, kind: type[ChangeCommand]) -> None:
        """A signature, counted back from the last, is confirmed, withdrawn, invalidated or erased."""
        command, key = self._signed(which)
        at = command.submitted_at + timedelta(minutes=5)
        self._submit(change(kind, command.signature_id.int, petition_id=command.petition_id, at=at), key)

    def _signed(self, which: int) -> tuple[SignCommand, bytes]:
        return self.signed[-1 - which % len(self.signed)]

    def _submit(self, command: Command, key: bytes) -> None:
        headers = event_headers(
            type(command), event_id=event_id_of(command), source="/groundswell/ingest", subject=command.petition_id
        )
        self.log.append(SUBMITTED, Record(key, command.model_dump_json().encode(), headers))

    def add_lane(self) -> None:
        """A partition is added to the commands' topic: some signers' keys map to another partition from now on."""
        self.grown = True
        self.log.add_partition(SUBMITTED)
        self.verify_group.rebalance()

    async def add_milestone(self, petition_id: str, threshold: int) -> None:
        """The petition gets a milestone that its count may already have passed."""
        if threshold not in self.thresholds[petition_id]:
            self.added[petition_id].add(threshold)
        self.thresholds[petition_id] = sorted({*self.thresholds[petition_id], threshold})
        self._catalogue.apply(self._petition(petition_id))
        for process in self.tallies:
            await process.handler.on_petition_change(self._petition(petition_id))

    def _petition(self, petition_id: str) -> Any:
        policy = Policy(confirmation="required" if petition_id == FERRY else "none")
        return petition(petition_id, milestones=self.thresholds[petition_id], policy=policy)

    # -------------------------------------------------------------------------------------------------------- processes

    def processes(self, service: Service) -> list[VerifyProcess] | list[TallyProcess]:
        """The living processes of a service, the eldest first."""
        return self.verifies if service == "verify" else self.tallies

    def group(self, service: Service) -> Group:
        """The service's consumer group."""
        return self.verify_group if service == "verify" else self.tally_group

    def start(self, service: Service) -> None:
        """One more process starts; the group reassigns the partitions."""
        process: VerifyProcess | TallyProcess
        if service == "verify":
            process = VerifyProcess(
                group=self.verify_group,
                database=self.database,
                producer=self._producer,
                catalogue=self._catalogue,
            )
            self.verifies.append(process)
        else:
            process = TallyProcess(
                group=self.tally_group,
                database=self.database,
                redis=self.parts.stepped_redis,
                producer=self._producer,
                catalogue=self._catalogue,
            )
            self.tallies.append(process)
        group = self.group(service)
        group.members.append(process.consumer)
        group.rebalance()

    async def _kill(self, service: Service, process: VerifyProcess | TallyProcess) -> None:
        self.verifies = [one for one in self.verifies if one is not process]
        self.tallies = [one for one in self.tallies if one is not process]
        self.group(service).members.remove(process.consumer)
        for actor in process.actors:
            await actor.kill()
        await self.rest()

    async def begin_a_batch(
        self, service: Service, which: int, where: Where, most_records: int
    ) -> VerifyProcess | TallyProcess:
        """A process takes a batch, if there are records, and runs up to a place in it."""
        for process in self.processes(service):
            process.consumer.most_records = most_records
        all_ = [self._process(service, which + place) for place in range(len(self.processes(service)))]
        process = next((one for one in all_ if not one.consumer.idle and not one.consumer.is_stale), all_[0])
        for _ in range(3):
            if not process.consumer.in_hand:
                await self.step(process.actors[0], 1)
        await self.step_to(process.actors[0], where)
        return process

    async def hand_over(
        self, service: Service, which: int, where: Where, steps: tuple[int, int], most_records: int
    ) -> None:
        """A process loses its partitions during a batch without noticing; the others go on, then the first."""
        while len(self.processes(service)) < 2:
            self.start(service)
        meanwhile, after = steps
        zombie = await self.begin_a_batch(service, which, where, most_records)
        self.group(service).rebalance(without=zombie.consumer)
        for process in self.processes(service):
            if process is not zombie:
                await self.step(process.actors[0], meanwhile)
        await self.step(zombie.actors[0], after)

    async def accident_amid_a_batch(
        self, service: Service, which: int, where: Where, most_records: int, what: Accident
    ) -> None:
        """A process is killed at a place in a batch, or its connection is cut there."""
        process = await self.begin_a_batch(service, which, where, most_records)
        await self._happens_to(process, 0, service, what)

    async def accident(self, service: Service, which: int, task: int, what: Accident) -> None:
        """A process is killed where it is, or the next call of one of its actors is cut."""
        await self._happens_to(self._process(service, which), task, service, what)

    async def _happens_to(
        self, process: VerifyProcess | TallyProcess, task: int, service: Service, what: Accident
    ) -> None:
        if what == "kill":
            await self._kill(service, process)
        else:
            process.actors[task % len(process.actors)].fault = what

    async def regroup(self, service: Service, how: Regrouping, which: int) -> None:
        """Partitions are reassigned, or a process notices that they were."""
        group = self.group(service)
        if how == "one more":
            if len(group.members) < MOST_PROCESSES:
                self.start(service)
        elif how == "one hears of it":
            if group.members and (member := group.members[which % len(group.members)]).is_stale:
                await member.learn()
        else:
            late = how == "one is late" and len(group.members) > 1
            group.rebalance(without=group.members[which % len(group.members)] if late else None)

    async def take_turns(self, turns: Sequence[tuple[int, int]]) -> None:
        """Actors go on one after the other: (actor, number of effects)."""
        for which, steps in turns:
            if actors := self.actors:
                await self.step(actors[which % len(actors)], steps)

    async def all_go_on(self, *services: Service) -> None:
        """All processes of these services go on for some batches, unless they have nothing to do."""
        for service in services:
            for process in self.processes(service):
                for actor in process.actors:
                    await self.step(actor, 40)

    def _process(self, service: Service, which: int) -> VerifyProcess | TallyProcess:
        processes = self.processes(service)
        return processes[which % len(processes)]

    async def step(self, actor: StepActor, steps: int) -> None:
        """Some effects of one actor; fewer if it has to wait for another, or has nothing left to do."""
        for _ in range(steps):
            rounds = actor.rounds
            actor.go_on()
            await self.rest()
            if actor.waits or actor.ended or actor.rounds != rounds:
                return

    async def step_to(self, actor: StepActor, where: Where) -> None:
        """Run to that place, unless it is not reached soon."""
        if isinstance(where, int):
            await self.step(actor, where)
            return
        point, left = where
        for _ in range(25):
            left -= actor.before == point
            if not left or actor.waits or actor.ended:
                return
            await self.step(actor, 1)

    async def rest(self) -> None:
        """Wait until all actors are at rest."""
        await all_at_rest(self.actors, self.parts.connection)

    @property
    def actors(self) -> list[StepActor]:
        """All actors that can go on."""
        both: Sequence[VerifyProcess | TallyProcess] = [*self.verifies, *self.tallies]
        return [actor for process in both for actor in process.actors] + self.operators

    # --------------------------------------------------------------------------------------------- Redis and operators

    async def save(self) -> None:
        """Save Redis' state, for a later restart from an older file or a failover to a lagging replica."""
        redis = self.parts.redis
        self._saved = {str(key): await redis.hgetall(key) for key in await redis.keys("tally:*")}

    async def lose(self, *, older: bool) -> None:
        """Another Redis replaces the present one: as it was saved, or empty."""
        self.losses += 1
        async with self.parts.redis.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for key, fields in self._saved.items() if older else ():
                pipe.hset(key, mapping=fields)
            await pipe.execute()

    def rebuild(self, petition_id: str) -> None:
        """An operator rebuilds a tally under traffic. It begins with its first step."""
        redis = self.parts.stepped_redis
        healer = Healer(
            redis=redis,
            store=TallyStore(redis),
            ledger=Ledger(self.database),
            metrics=TallyMetrics(CollectorRegistry()),
        )

        async def work() -> None:
            try:
                await healer.rebuild(petition_id, cause="command")
            except Exception as error:
                if not is_transient(error):
                    raise

        self.operators = [one for one in self.operators if not one.ended] + [StepActor(work)]

    def wait_five_minutes(self) -> None:
        """Let so much time pass that every tally publishes everything again."""
        for process in self.tallies:
            process.wait_five_minutes()

    # ------------------------------------------------------------------------------------------------------------ the end

    async def settle(self) -> None:
        """No more failures: all living processes go on until nothing is left to do.

        Raises:
            Violation: they do not finish.
        """
        for actor in self.actors:
            actor.fault = None
        for service in ("verify", "tally"):
            if not self.processes(service):
                self.start(service)
            elif self.group(service).has_orphans:
                self.group(service).rebalance()
            await self._drain(self.processes(service))
        while busy := [one for one in self.operators if not one.ended]:
            await self._all_go_on(busy)
        await self.watch_twice()

    async def _drain(self, processes: Sequence[VerifyProcess | TallyProcess]) -> None:
        for _ in range(500):
            busy = [one for one in processes if not one.consumer.idle]
            if not busy:
                return
            # A batch may wait for its process's other actors.
            await self._all_go_on([actor for process in busy for actor in process.actors])
        raise Violation("the batches never came to an end")

    async def watch_twice(self) -> None:
        """Run two rounds of every tally's watch and snapshots: the current one, and a complete one.

        Raises:
            Violation: they do not finish.
        """
        for task in (1, 2):  # publish the watch's findings
            rounds = [(process.actors[task], process.actors[task].rounds + 2) for process in self.tallies]
            await self._go_round(rounds)

    async def _go_round(self, rounds: Sequence[tuple[StepActor, int]]) -> None:
        for _ in range(500):
            busy = [actor for actor, wanted in rounds if actor.rounds < wanted]
            busy += [process.actors[0] for process in self.tallies if not process.consumer.idle]
            if not busy:
                return
            await self._all_go_on(busy)
        raise Violation("the watch or the snapshots never came to an end")

    async def _all_go_on(self, actors: Sequence[StepActor]) -> None:
        for actor in actors:
            actor.go_on()
            await self.rest()

    async def end(self) -> None:
        """Nothing runs any more."""
        for actor in self.actors:
            await actor.kill()
