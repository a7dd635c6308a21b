"""Invariants, after every event and at the end. Everything is read from outside and computed independently."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.tally.counting.audit import audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from services.verify.deciding.rules import SubmittedCommand
from shared.contract.catalogue import Catalogue
from shared.contract.events import CountedFact, MilestoneReached, SignCommand, TallyUpdated, minute_of
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.record import Record
from shared.redis import INCARNATION_KEY
from tests.integration.verify.verify_world import Outcome
from tests.model.log import LogProducer, polled
from tests.model.processes import VerifyProcess
from tests.model.world import MILESTONES, PETITIONS, SUBMITTED, TALLIES, VERIFIED, Violation, World

_STANDS = "verified"


def require(holds: bool, what: str) -> None:
    """Raise `Violation` unless it holds."""
    if not holds:
        raise Violation(what)


@dataclass(frozen=True)
class Rows:
    """What PostgreSQL has."""

    ledger: list[Any]
    signatures: dict[UUID, Any]
    milestones: list[Any]
    witnesses: dict[int, str]

    def of(self, petition_id: str) -> list[Any]:
        """The petition's rows of the ledger."""
        return [row for row in self.ledger if row["petition_id"] == petition_id]


@dataclass(frozen=True)
class Look:
    """The state of PostgreSQL and Redis at a moment when all actors are at rest."""

    rows: Rows
    tallies: dict[str, TallyState]
    trusted: frozenset[str]
    """Petitions whose witness in PostgreSQL names the present Redis."""


class Observer:
    """Reads the state; PostgreSQL only when something there may have changed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rows: Rows | None = None
        self._changes = 0
        self._run_id = ""

    async def look(self) -> Look:
        """Read the state."""
        changes = self._world.database.changes.number
        if self._rows is None or changes != self._changes:
            self._rows, self._changes = await self._read_rows(), changes
        redis = self._world.parts.redis
        if not self._run_id:
            self._run_id = (await redis.info("server"))["run_id"]
        async with redis.pipeline(transaction=False) as pipe:
            pipe.get(INCARNATION_KEY)
            for petition_id in PETITIONS:
                pipe.hgetall(f"tally:{{{petition_id}}}")
                pipe.hgetall(f"tally:{{{petition_id}}}:minutes")
            incarnation, *hashes = await pipe.execute()
        partitions = len(self._world.log.partitions(VERIFIED))
        witnesses = {name: self._rows.witnesses.get(partition_of(name.encode(), partitions), "") for name in PETITIONS}
        return Look(
            self._rows,
            {name: _state(*hashes[2 * place : 2 * place + 2]) for place, name in enumerate(PETITIONS)},
            frozenset(name for name, witness in witnesses.items() if witness == f"{self._run_id}/{incarnation}"),
        )

    async def _read_rows(self) -> Rows:
        connection = self._world.parts.connection
        witnesses = await connection.fetch("SELECT partition, identity FROM redis_witness")
        return Rows(
            ledger=await connection.fetch("SELECT * FROM ledger ORDER BY lane, position"),
            signatures={row["signature_id"]: row for row in await connection.fetch("SELECT * FROM signatures")},
            milestones=await connection.fetch("SELECT * FROM milestones"),
            witnesses={row["partition"]: row["identity"] for row in witnesses},
        )


def _state(fields: dict[str, str], minutes: dict[str, str]) -> TallyState:
    def named(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): int(value) for name, value in fields.items() if name.startswith(prefix)}

    return TallyState(
        count=int(fields.get("count", 0)),
        revision=int(fields.get("revision", 0)),
        fences={int(lane): position for lane, position in named("fence:").items()},
        countries=named("country:"),
        minutes={int(minute): int(number) for minute, number in minutes.items()},
    )


class Invariants:
    """Checks the invariants of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._observer = Observer(world)
        self._ledger: list[Any] = []
        self._revisions: dict[str, int] = {}
        self._read: dict[tuple[str, int], int] = defaultdict(int)
        self._decode = VerifyProcess(
            group=world.verify_group,
            database=world.parts.database,
            producer=LogProducer(world.log),
            catalogue=Catalogue(),
        ).handler.decode
        self._commands: dict[int, list[SubmittedCommand]] = defaultdict(list)
        self._facts: dict[int, list[CountedFact]] = defaultdict(list)
        self._places: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._copies: dict[tuple[str, str], Record] = {}
        self._snapshots: dict[tuple[str, int], TallyUpdated] = {}
        self._shown: dict[str, TallyUpdated] = {}
        self._announced: dict[tuple[str, int], str] = {}
        """The event of every milestone on the topic."""

    async def check(self) -> None:
        """What holds at every moment."""
        seen = await self._observer.look()
        self._ledger_only_grows(seen)
        self._standing_signatures_are_the_ledgers(seen)
        self._facts_come_in_the_ledgers_order(seen)
        self._committed_commands_are_decided_and_told(seen)
        self._tallies_are_right_at_their_fences(seen)
        self._committed_facts_are_counted(seen)
        self._snapshots_say_what_was_counted(seen)
        self._milestones_are_one_event_each(seen)

    # ------------------------------------------------------------------------------------------------------- verify's

    def _ledger_only_grows(self, seen: Look) -> None:
        positions: dict[int, list[int]] = defaultdict(list)
        for row in seen.rows.ledger:
            positions[row["lane"]].append(row["position"])
        for lane, found in positions.items():
            require(found == list(range(1, len(found) + 1)), f"lane {lane} has the positions {found}")
        rows = set(seen.rows.ledger)
        require(all(row in rows for row in self._ledger), "a row of the ledger is gone, or another than before")
        self._ledger = seen.rows.ledger

    def _standing_signatures_are_the_ledgers(self, seen: Look) -> None:
        for petition_id in PETITIONS:
            standing = [
                row["signer_key"]
                for row in seen.rows.signatures.values()
                if row["petition_id"] == petition_id and row["state"] == _STANDS
            ]
            count = sum(row["delta"] for row in seen.rows.of(petition_id))
            require(len(standing) == len(set(standing)), f"a signer stands twice for {petition_id}")
            require(len(standing) == count, f"{len(standing)} stand for {petition_id}, the ledger says {count}")

    def _facts_come_in_the_ledgers_order(self, seen: Look) -> None:
        for partition, record in self._new(VERIFIED):
            self._event_of(VERIFIED, record)
            fact = CountedFact.model_validate_json(record.value or b"")
            self._facts[partition].append(fact)
            places = self._places[fact.petition_id, fact.lane]
            if fact.position not in places:
                places.append(fact.position)
        wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row in seen.rows.ledger:
            wanted[row["petition_id"], row["lane"]].append(row["position"])
        for (petition_id, lane), places in self._places.items():
            there = wanted[petition_id, lane]
            require(
                places == there[: len(places)],
                f"facts of {petition_id} in lane {lane} first come as {places}, the ledger has {there}",
            )

    def _committed_commands_are_decided_and_told(self, seen: Look) -> None:
        for lane, record in self._new(SUBMITTED):
            offset = len(self._commands[lane])
            self._commands[lane].append(self._decode(polled(record, partition=lane, offset=offset)))
        counted = {(row["event_id"], row["lane"]) for row in seen.rows.ledger}
        for lane, commands in self._commands.items():
            for one in commands[: self._world.verify_group.committed[lane]]:
                if isinstance(one.command, SignCommand):
                    require(one.event_id in seen.rows.signatures, f"{one.event_id} was passed over")
                if (one.event_id, lane) in counted:
                    told = (VERIFIED, str(one.event_id)) in self._copies
                    require(told, f"{one.event_id} counts, and the topic does not say so")

    # -------------------------------------------------------------------------------------------------------- tally's

    def _tallies_are_right_at_their_fences(self, seen: Look) -> None:
        for petition_id in seen.trusted:
            tally = seen.tallies[petition_id]
            rows = [row for row in seen.rows.of(petition_id) if row["position"] <= tally.fences.get(row["lane"], 0)]
            require(_tally_of(rows) == _told(tally), f"{petition_id}: {_told(tally)} is not {_tally_of(rows)}")
        if not self._world.losses:
            for petition_id, tally in seen.tallies.items():
                before = self._revisions.get(petition_id, 0)
                require(tally.revision >= before, f"the revision of {petition_id} fell from {before}")
                self._revisions[petition_id] = tally.revision

    def _committed_facts_are_counted(self, seen: Look) -> None:
        committed = self._world.tally_group.committed
        for partition, facts in self._facts.items():
            for fact in facts[: committed[partition]]:
                if fact.petition_id in seen.trusted:
                    fence = seen.tallies[fact.petition_id].fences.get(fact.lane, 0)
                    require(
                        fact.position <= fence,
                        f"{fact.petition_id}: {fact.position} of lane {fact.lane} was passed over at {fence}",
                    )

    def _snapshots_say_what_was_counted(self, seen: Look) -> None:
        for _, record in self._new(TALLIES):
            told = TallyUpdated.model_validate_json(record.value or b"")
            rows = seen.rows.of(told.petition_id)
            require(told.revision <= len(rows), f"revision {told.revision} of {told.petition_id}, of {len(rows)} rows")
            if not self._world.losses:
                first = self._snapshots.setdefault((told.petition_id, told.revision), told)
                require(_same_count(first, told), f"two snapshots of one revision: {first}, {told}")
            shown = self._shown.get(told.petition_id)
            if shown is None or told.revision > shown.revision:
                self._shown[told.petition_id] = told

    def _milestones_are_one_event_each(self, seen: Look) -> None:
        for _, record in self._new(MILESTONES):
            event = self._event_of(MILESTONES, record)
            told = MilestoneReached.model_validate_json(record.value or b"")
            first = self._announced.setdefault((told.petition_id, told.threshold), event)
            require(first == event, f"{told.threshold} of {told.petition_id} was announced as two events")
            signed = sum(row["delta"] > 0 for row in seen.rows.of(told.petition_id))
            require(
                told.threshold <= told.count <= signed,
                f"{told.petition_id} cannot have reached {told.threshold} with {told.count} of {signed}",
            )
        for row in seen.rows.milestones:
            published = (row["petition_id"], row["threshold"]) in self._announced
            require(published or row["announced_at"] is None, f"{row} is marked, and was never published")

    # ------------------------------------------------------------------------------------------------------ in the end

    async def check_settled(self) -> None:
        """Invariants when nothing is left to do."""
        await self.check()
        world = self._world
        seen = await self._observer.look()
        store, ledger = TallyStore(world.parts.redis), Ledger(world.parts.database)
        for found in await audit(store, ledger, PETITIONS):
            require(found.right and not found.beyond, f"the audit found {found}")
        if not world.grown:
            self._outcomes_are_those_of_the_rules(seen)
        for petition_id in PETITIONS:
            tally = seen.tallies[petition_id]
            distinct = {
                row["signer_key"]
                for row in seen.rows.signatures.values()
                if row["petition_id"] == petition_id and row["state"] == _STANDS
            }
            require(tally.count == len(distinct), f"{petition_id} has {tally.count}, not {len(distinct)}")
            require(tally == await ledger.state(petition_id), f"{petition_id} is not what the ledger says")
            self._subscribers_are_right(petition_id, tally)

    def _outcomes_are_those_of_the_rules(self, seen: Look) -> None:
        expected: dict[UUID, str] = {}
        for lane, commands in self._commands.items():
            outcome = Outcome()
            for one in commands:
                outcome.take(one)
            expected.update(outcome.states)
            rows = [(row["event_id"], row["kind"]) for row in seen.rows.ledger if row["lane"] == lane]
            require(rows == outcome.ledger, f"lane {lane} is {rows}, the rules make it {outcome.ledger}")
        states = {number: row["state"] for number, row in seen.rows.signatures.items()}
        require(states == expected, f"states are {states}, the rules make them {expected}")

    def _subscribers_are_right(self, petition_id: str, tally: TallyState) -> None:
        shown = self._shown.get(petition_id)
        if shown is None:
            require(tally.revision == 0, f"nobody was told of {petition_id}")
            return
        require(
            (shown.count, shown.revision) == (tally.count, tally.revision),
            f"subscribers have {shown.count} for {petition_id} at {shown.revision}, not {tally.count} at {tally.revision}",
        )
        minutes = shown.earlier + sum(shown.minutes.values())
        require(shown.count == sum(shown.countries.values()) == minutes, f"break-downs do not add up: {shown}")

    async def check_told(self) -> None:
        """Invariants after everything was published again: all reached milestones are announced and marked."""
        await self.check_settled()
        seen = await self._observer.look()
        for petition_id, thresholds in self._world.thresholds.items():
            count = seen.tallies[petition_id].count
            for threshold in thresholds:
                reached = count >= threshold or self._was_shown(petition_id, threshold)
                announced = (petition_id, threshold) in self._announced
                require(announced or not reached, f"{threshold} of {petition_id} was reached, and not announced")
        left = [row for row in seen.rows.milestones if row["announced_at"] is None]
        require(not left, f"recorded and not announced: {left}")

    def _was_shown(self, petition_id: str, threshold: int) -> bool:
        """Whether subscribers once saw a count that reached the threshold, even if it has fallen since.

        A milestone that was added later counts from then on. A peak is unknown if only a lost Redis had counted it, tally was
        killed before it could record it, and withdrawals then lowered the count.
        """
        if self._world.losses or threshold in self._world.added[petition_id]:
            return False
        return any(name == petition_id and told.count >= threshold for (name, _), told in self._snapshots.items())

    # ---------------------------------------------------------------------------------------------------------- reading

    def _new(self, topic: str) -> list[tuple[int, Record]]:
        """New records of a topic since the last call: (partition, record)."""
        new = []
        for number, records in enumerate(self._world.log.partitions(topic)):
            new += [(number, record) for record in records[self._read[topic, number] :]]
            self._read[topic, number] = len(records)
        return new

    def _event_of(self, topic: str, record: Record) -> str:
        """The event's id. All its copies must be equal."""
        event = dict(record.headers)["ce_id"].decode()
        first = self._copies.setdefault((topic, event), record)
        require(first == record, f"event {event} was published in two ways: {first}, {record}")
        return event


def _tally_of(rows: Sequence[Any]) -> tuple[Any, ...]:
    """The tally that these rows must give."""
    countries: Counter[str] = Counter()
    minutes: Counter[int] = Counter()
    for row in rows:
        countries[row["country"]] += row["delta"]
        minutes[minute_of(row["signed_at"])] += row["delta"]
    return sum(row["delta"] for row in rows), len(rows), _without_zeros(countries), _without_zeros(minutes)


def _told(tally: TallyState) -> tuple[Any, ...]:
    return tally.count, tally.revision, tally.countries, tally.minutes


def _without_zeros(counts: Counter[Any]) -> dict[Any, int]:
    return {name: number for name, number in counts.items() if number}


def _same_count(one: TallyUpdated, other: TallyUpdated) -> bool:
    return one.model_copy(update={"updated_at": other.updated_at}) == other
