"""The state machine: hypothesis writes programs of events, and shrinks a failing one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.contract.events import ChangeCommand, ConfirmCommand, EraseCommand, InvalidateCommand, WithdrawCommand
from tests.model.invariants import Invariants
from tests.model.steps import Where
from tests.model.world import MOST_PROCESSES, PETITIONS, Accident, Afterwards, Parts, Regrouping, Service, World

SERVICES: Final[tuple[Service, ...]] = ("verify", "tally")
A_SERVICE = st.sampled_from(SERVICES)
WHICH = st.integers(0, MOST_PROCESSES - 1)
"""A process, the eldest first."""
REGROUPINGS: st.SearchStrategy[Regrouping] = st.sampled_from(("all join", "one is late", "one more", "one hears of it"))
AN_ACCIDENT: st.SearchStrategy[Accident] = st.sampled_from(("kill", "before", "after"))
STEPS = st.integers(1, 40)
"""Effects: from one to several batches."""
AMID: st.SearchStrategy[Where] = st.sampled_from(
    (("commit", 1), ("publish", 1), ("offset", 1), ("script", 1), ("script", 2), ("publish", 2), 0, 1, 2, 3, 5, 8, 12)
)
# A process that has not counted since its assignment reads the fences with its first script.
AMID_A_COUNT: st.SearchStrategy[Where] = st.sampled_from((("script", 2), ("script", 1), ("offset", 1), 0, 1, 4, 8))
MOST_RECORDS = st.integers(1, 5)
COUNTRIES = st.sampled_from(("NL", "BE", "NL", "BE", "ZZ"))
"""The last one does not exist."""
COMES_AGAIN: Final = (None, ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand)
ComesBack = Literal["empty", "older"]
Signature = tuple[int | None, str, str, Afterwards]
SIGNATURES: st.SearchStrategy[Signature] = st.tuples(
    st.sampled_from((None, None, None, 0, 1, 4)),
    st.sampled_from(PETITIONS),
    COUNTRIES,
    st.sampled_from(("confirmed", "confirmed", "confirmed", "not confirmed", "earlier again")),
)
"""A signature: a new or earlier signer, the petition, the country, and what follows at once."""
A_FEW_SIGNATURES = st.lists(SIGNATURES, min_size=1, max_size=4)


class ProtocolMachine(RuleBasedStateMachine):
    """Signers, processes, failures. Subclasses name the parts that it runs on."""

    runner: ClassVar[asyncio.Runner]
    parts: ClassVar[Parts]

    def __init__(self) -> None:
        super().__init__()
        self._do(self.parts.empty())
        self.world = World(self.parts)
        self._invariants = Invariants(self.world)
        self._broken = False
        self._moved = True

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        self._moved = True
        try:
            self.runner.run(work)
        except BaseException:
            self._broken = True
            raise

    @initialize(signatures=st.lists(SIGNATURES, min_size=2, max_size=10), steps=st.sampled_from((0, 20, 60)))
    def the_first_day(self, signatures: list[Signature], steps: int) -> None:
        for service in SERVICES:
            self.world.start(service)
        self.signers_sign(signatures)
        self._do(self.world.take_turns([(which, steps) for which in range(len(self.world.actors))]))

    # --------------------------------------------------------------------------------------------------- signers

    @rule(signatures=st.lists(SIGNATURES, min_size=1, max_size=5))
    def signers_sign(self, signatures: list[Signature]) -> None:
        for signature in signatures:
            self.world.sign(*signature)

    @precondition(lambda self: self.world.signed)
    @rule(which=st.integers(0, 10), kind=st.sampled_from(COMES_AGAIN))
    def a_signer_comes_again(self, which: int, kind: type[ChangeCommand] | None) -> None:
        """Send the command again, confirm, withdraw, invalidate or erase. If the signature is a duplicate, the command applies to
        the one that it is a duplicate of."""
        if kind is None:
            self.world.retry(which)
        else:
            self.world.change(which, kind)

    # ------------------------------------------------------------------------------------------------- processes

    @rule(turns=st.lists(st.tuples(st.integers(0, 11), STEPS), min_size=1, max_size=12))
    def all_take_turns(self, turns: list[tuple[int, int]]) -> None:
        self._do(self.world.take_turns(turns))

    @rule()
    def all_go_on_for_long(self) -> None:
        self._do(self.world.all_go_on("verify", "tally"))

    @rule(service=A_SERVICE, which=WHICH, task=st.integers(0, 2), what=AN_ACCIDENT)
    def an_accident(self, service: Service, which: int, task: int, what: Accident) -> None:
        if self.world.processes(service):
            self._do(self.world.accident(service, which, task, what))

    @rule(service=A_SERVICE, how=REGROUPINGS, which=WHICH)
    def the_group_changes(self, service: Service, how: Regrouping, which: int) -> None:
        self._do(self.world.regroup(service, how, which))

    @rule(service=A_SERVICE, back=st.integers(1, 20))
    def records_are_delivered_again(self, service: Service, back: int) -> None:
        self.world.group(service).reset(back)

    @rule(which=WHICH, signatures=A_FEW_SIGNATURES, where=AMID, meanwhile=STEPS, after=STEPS, most_records=MOST_RECORDS)
    def a_zombie_decides(
        self,
        which: int,
        signatures: list[Signature],
        where: Where,
        meanwhile: int,
        after: int,
        most_records: int,
    ) -> None:
        """Lanes are reassigned during a batch, and their process does not notice: it was paused, or cut off."""
        self.signers_sign(signatures)
        self._do(self.world.hand_over("verify", which, where, (meanwhile, after), most_records))

    @rule(which=WHICH, signatures=A_FEW_SIGNATURES, where=AMID_A_COUNT, after=STEPS, most_records=MOST_RECORDS)
    def a_zombie_counts(
        self, which: int, signatures: list[Signature], where: Where, after: int, most_records: int
    ) -> None:
        """The same for tally; other processes count all of its batch meanwhile."""
        self.signers_sign(signatures)
        self._do(self.world.all_go_on("verify"))
        self._do(self.world.hand_over("tally", which, where, (40, after), most_records))

    @rule(
        service=A_SERVICE,
        which=WHICH,
        signatures=A_FEW_SIGNATURES,
        where=AMID,
        most_records=MOST_RECORDS,
        what=AN_ACCIDENT,
    )
    def an_accident_amid_a_batch(
        self,
        service: Service,
        which: int,
        signatures: list[Signature],
        where: Where,
        most_records: int,
        what: Accident,
    ) -> None:
        self.signers_sign(signatures)
        if service == "tally":
            self._do(self.world.all_go_on("verify"))
        if self.world.processes(service):
            self._do(self.world.accident_amid_a_batch(service, which, where, most_records, what))

    # --------------------------------------------------------------------------------------- Redis, operators, time

    @rule(what=st.sampled_from(("saved", "empty", "older")))
    def redis_is_saved_or_lost(self, what: Literal["saved"] | ComesBack) -> None:
        self._do(self.world.save() if what == "saved" else self.world.lose(older=what == "older"))

    @rule(
        which=WHICH,
        signatures=A_FEW_SIGNATURES,
        where=AMID,
        most_records=MOST_RECORDS,
        comes_back=st.sampled_from(("empty", "older")),
    )
    def redis_is_lost_amid_a_batch(
        self, which: int, signatures: list[Signature], where: Where, most_records: int, comes_back: ComesBack
    ) -> None:
        """It lacks at least what this batch counts."""
        self.signers_sign(signatures)
        self._do(self.world.all_go_on("verify"))
        self._do(self.world.save())
        if self.world.tallies:
            self._do(self.world.begin_a_batch("tally", which, where, most_records))
        self._do(self.world.lose(older=comes_back == "older"))

    @rule(
        petition_id=st.sampled_from(PETITIONS),
        signatures=A_FEW_SIGNATURES,
        where=AMID,
    )
    def signers_sign_amid_a_rebuild(self, petition_id: str, signatures: list[Signature], where: Where) -> None:
        self.world.rebuild(petition_id)
        self._do(self.world.step_to(self.world.operators[-1], where))
        self.signers_sign(signatures)
        self._do(self.world.all_go_on("verify", "tally"))
        self._do(self.world.step(self.world.operators[-1], 3))

    @rule(
        what=st.sampled_from(("five minutes pass", "a lane is added", "a milestone is added")),
        petition_id=st.sampled_from(PETITIONS),
        threshold=st.integers(1, 5),
    )
    def time_goes_by(self, what: str, petition_id: str, threshold: int) -> None:
        if what == "five minutes pass":
            self.world.wait_five_minutes()
        elif what == "a milestone is added":
            self._do(self.world.add_milestone(petition_id, threshold))
        elif not self.world.grown:
            self.world.add_lane()

    # ------------------------------------------------------------------------------------------------- what must hold

    @invariant()
    def nothing_is_lost_or_double(self) -> None:
        if self._moved:
            self._do(self._invariants.check())
        self._moved = False

    def teardown(self) -> None:
        try:
            if not self._broken:
                self._do(self._settle())
        finally:
            self._do(self.world.end())

    async def _settle(self) -> None:
        await self.world.settle()
        await self._invariants.check_settled()
        self.world.wait_five_minutes()
        await self.world.watch_twice()
        await self._invariants.check_told()
