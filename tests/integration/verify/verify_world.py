"""verify's real code in a world of failures, run by test_verify_protocol, one seed after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, cast
from uuid import UUID, uuid4

from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from services.verify.deciding.rules import SubmittedCommand
from services.verify.handlers import VerifyHandler
from services.verify.metrics import VerifyMetrics
from services.verify.store import VerifyStore
from shared.contract.catalogue import Catalogue
from shared.contract.events import (
    ChangeCommand,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    Policy,
    SignatureRejected,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    WithdrawCommand,
)
from shared.contract.topics import SIGNATURES_REJECTED, SIGNATURES_VERIFIED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.kafka.records.record import Record
from shared.postgres import Database
from shared.runtime.failures import is_transient
from tests.support.signing import FERRY, PATH, PEPPER, MemoryProducer, change, petition, sign, submission
from tests.support.turns import Actor, turn

LANES = 2


class CaughtUp(CatalogueFeed):
    """A catalogue that is already complete."""

    def __init__(self) -> None:
        pass

    async def catch_up(self) -> None:
        await turn()


@dataclass
class Outcome:
    """A reference model of the rules: the outcome of commands, one after the other."""

    states: dict[UUID, str] = field(default_factory=dict)
    ledger: list[tuple[UUID, str]] = field(default_factory=list)
    """(event, kind) of every change of a count."""
    _signers: dict[UUID, UUID] = field(default_factory=dict)
    _duplicate_of: dict[UUID, UUID] = field(default_factory=dict)
    _seen: set[UUID] = field(default_factory=set)

    def take(self, one: SubmittedCommand) -> None:
        if one.event_id in self._seen:
            return
        self._seen.add(one.event_id)
        if isinstance(one.command, SignCommand):
            self._sign(one, one.command)
        else:
            self._change(one, one.command)

    def _sign(self, one: SubmittedCommand, command: SignCommand) -> None:
        standing = {self._signers[known]: known for known, state in self.states.items() if state in _KEEPS_OTHERS_OUT}
        if command.country == "ZZ":
            state = "rejected"
        elif one.signer_key in standing:
            state = "duplicate"
            self._duplicate_of[command.signature_id] = standing[one.signer_key]
        else:
            state = "pending" if command.petition_id == FERRY else "verified"
        self.states[command.signature_id] = state
        self._signers[command.signature_id] = one.signer_key
        if state == "verified":
            self.ledger.append((one.event_id, state))

    def _change(self, one: SubmittedCommand, command: ChangeCommand) -> None:
        about = self._duplicate_of.get(command.signature_id, command.signature_id)
        before = self.states.get(about)
        if isinstance(command, EraseCommand):
            for known in self.states:
                if self._duplicate_of.get(known, known) == about:
                    self._signers[known] = uuid4()  # nobody's
            return
        after = {ConfirmCommand: "verified", WithdrawCommand: "withdrawn", InvalidateCommand: "invalidated"}[
            cast("Any", type(command))
        ]
        if before == "pending" or (before == "verified" and after != "verified"):
            self.states[about] = after
            if "verified" in (before, after):
                self.ledger.append((one.event_id, after))


_KEEPS_OTHERS_OUT = ("pending", "verified", "invalidated")


def some_commands(random: Random, *, grown: bool) -> list[list[SubmittedCommand]]:
    """Two lanes of commands of a few signers: repeats, retries, changes of what was signed before.

    With `grown`, partitions were added on the way: from the middle on, signers' commands come in the other lane.
    """
    lanes: list[list[SubmittedCommand]] = [[] for _ in range(LANES)]
    signed: list[SubmittedCommand] = []
    total = random.randint(6, 18)
    for number in range(1, total + 1):
        old = random.choice(signed) if signed and random.random() < 0.5 else None
        if old is None:
            command: Any = sign(
                number,
                signer=random.randrange(5),
                petition_id=random.choice([PATH, PATH, FERRY]),
                country=random.choice(["NL", "NL", "NL", "NL", "ZZ"]),
            )
            key = submission(command).signer_key
        elif random.random() < 0.3:
            command, key = old.command, old.signer_key  # a client's retry
        else:
            kind = random.choice([ConfirmCommand, WithdrawCommand, WithdrawCommand, InvalidateCommand, EraseCommand])
            assert isinstance(old.command, SignCommand)
            command = change(kind, old.command.signature_id.int, petition_id=old.command.petition_id)
            key = old.signer_key
        lane = (key.int + (grown and number > total // 2)) % LANES
        lanes[lane].append(submission(command, offset=len(lanes[lane]), lane=lane, key=key))
        if old is None:
            signed.append(lanes[lane][-1])
    return lanes


class Instance:
    """A verify process that consumes all lanes until it is killed or its commit is refused."""

    def __init__(self, world: World) -> None:
        self.world, self.generation = world, world.generation
        self.handler = VerifyHandler(
            catalogue=world.catalogue,
            feed=CaughtUp(),
            store=VerifyStore(world.database),
            producer=world.producer,
            metrics=VerifyMetrics(CollectorRegistry()),
            pepper=PEPPER,
        )
        self.actor = Actor(self._consume, blocks=True)

    async def _consume(self) -> None:
        world = self.world
        positions = list(world.committed)
        while True:
            await turn()
            ends = [
                min(len(records), start + world.random.randint(0, 5))
                for records, start in zip(world.lanes, positions, strict=True)
            ]
            parts = [records[a:b] for records, a, b in zip(world.lanes, positions, ends, strict=True)]
            world.random.shuffle(parts)
            batch = [one for part in parts for one in part]
            if batch and not await self.decide(batch, ends):
                continue
            positions = ends
            await turn()
            if self.generation != world.generation:
                return  # its commit is refused
            world.committed = positions

    async def decide(self, batch: Sequence[SubmittedCommand], _: list[int]) -> bool:
        """Whether the batch was decided and published; else it is held, and tried again."""
        try:
            await self.handler.process(batch)
        except Exception as error:
            if not is_transient(error):
                raise
            return False
        return True


class World:
    """One run: two lanes of commands, instances, and accidents, as the seed has it."""

    weights: ClassVar[dict[str, int]] = {"step": 90, "new_owner": 5, "kill_one": 5}

    def __init__(self, seed: int, database: Database, *, grown: bool) -> None:
        self.random, self.database, self.grown = Random(seed), database, grown
        self.catalogue = Catalogue()
        self.catalogue.apply(petition(PATH))
        self.catalogue.apply(petition(FERRY, policy=Policy(confirmation="required")))
        self.lanes = some_commands(self.random, grown=grown)
        self.producer = MemoryProducer(before=self._before)
        self.quiet = False
        self.generation = 0
        self.committed = [0] * LANES
        self.instances: list[Instance] = []

    async def _before(self, _: str, __: Record) -> None:
        await turn()
        if not self.quiet and self.random.random() < 0.05:
            raise KafkaConnectionError("away")

    async def step(self) -> None:
        """Some instance goes on."""
        going = [one for one in self.instances if not one.actor.ended]
        await self.random.choice(going).actor.step()

    async def new_owner(self) -> None:
        """Another instance takes over; the one before does not know yet."""
        self.generation += 1
        self.instances.append(Instance(self))

    async def kill_one(self) -> None:
        """Killed right there: its transaction, if it is in one, is rolled back."""
        victim = self.random.choice(self.instances)
        self.instances.remove(victim)
        await victim.actor.kill()
        if victim.generation == self.generation:
            await self.new_owner()

    async def run(self) -> list[str]:
        """Returns what is wrong in the end."""
        await self.new_owner()
        try:
            for _ in range(60):
                (happening,) = self.random.choices([*self.weights], [*self.weights.values()])
                await getattr(self, happening)()
            self.quiet = True
            await self.new_owner()
            for _ in range(1_500):
                if self._done():
                    return await self._wrong()
                await self.step()
            return ["it never came to an end"]
        finally:
            for one in self.instances:
                await one.actor.kill()

    def _done(self) -> bool:
        zombies = any(not one.actor.ended for one in self.instances[:-1])
        return not zombies and self.committed == [len(records) for records in self.lanes]

    # -------------------------------------------------------------------------------------------------- what is wrong

    async def _wrong(self) -> list[str]:
        states = {
            row["signature_id"]: row["state"]
            for row in await self.database.pool.fetch("SELECT signature_id, state FROM signatures")
        }
        rows = await self.database.pool.fetch("SELECT * FROM ledger ORDER BY lane, position")
        wrong = [] if self.grown else self._differs_from_the_rules(states, rows)
        submitted = {one.event_id for lane in self.lanes for one in lane if isinstance(one.command, SignCommand)}
        if submitted != states.keys():
            wrong.append("not every submission has one outcome")
        for petition_id in (PATH, FERRY):
            standing = await self.database.pool.fetchval(
                "SELECT count(*) FROM signatures WHERE petition_id = $1 AND state = 'verified'", petition_id
            )
            if standing != sum(row["delta"] for row in rows if row["petition_id"] == petition_id):
                wrong.append(f"the ledger does not add up to the {standing} that stand for {petition_id}")
        return wrong + self._wrong_facts(rows) + self._wrong_refusals(states)

    def _differs_from_the_rules(self, states: dict[UUID, str], rows: Sequence[Any]) -> list[str]:
        wrong = []
        expected: dict[UUID, str] = {}
        for lane, records in enumerate(self.lanes):
            outcome = Outcome()
            for one in records:
                outcome.take(one)
            expected.update(outcome.states)
            found = [(row["event_id"], row["kind"]) for row in rows if row["lane"] == lane]
            if found != outcome.ledger:
                wrong.append(f"lane {lane} is {found}, not {outcome.ledger}")
        if states != expected:
            wrong.append(f"states are {states}, not {expected}")
        return wrong

    def _wrong_facts(self, rows: Sequence[Any]) -> list[str]:
        wrong = []
        published = self.producer.on(SIGNATURES_VERIFIED.name)
        places: dict[tuple[int, str], list[int]] = defaultdict(list)
        for one in published:
            model = (
                SignatureVerified if SignatureVerified.TYPE.encode() in dict(one.headers).values() else SignatureRevoked
            )
            fact = model.model_validate_json(one.value or b"")
            positions = places[fact.lane, fact.petition_id]
            if fact.position not in positions:
                positions.append(fact.position)
        wanted: dict[tuple[int, str], list[int]] = defaultdict(list)
        for lane in range(LANES):
            positions = [row["position"] for row in rows if row["lane"] == lane]
            if positions != list(range(1, len(positions) + 1)):
                wrong.append(f"lane {lane} has the positions {positions}")
        for row in rows:
            wanted[row["lane"], row["petition_id"]].append(row["position"])
        if places != wanted:
            wrong.append(f"facts first appear as {dict(places)}, the ledger has {dict(wanted)}")
        return wrong + self._different_copies(published)

    def _wrong_refusals(self, states: dict[UUID, str]) -> list[str]:
        published = self.producer.on(SIGNATURES_REJECTED.name)
        told = {
            (event.signature_id, event.outcome)
            for event in (SignatureRejected.model_validate_json(one.value or b"") for one in published)
        }
        refused = {(number, state) for number, state in states.items() if state in ("duplicate", "rejected")}
        wrong = [] if told == refused else [f"refusals told {told}, not {refused}"]
        return wrong + self._different_copies(published)

    @staticmethod
    def _different_copies(published: Sequence[Record]) -> list[str]:
        copies: dict[Any, set[tuple[Any, ...]]] = defaultdict(set)
        for one in published:
            copies[dict(one.headers)["ce_id"]].add((one.key, one.value, tuple(one.headers)))
        return [
            f"event {number!r} was published in {len(all_)} ways" for number, all_ in copies.items() if len(all_) > 1
        ]
