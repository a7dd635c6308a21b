"""The machine of impossible states: hypothesis writes programs of real traffic with impossible states in between.

Every step runs on the real services. After each step ten honest signatures of another petition must be counted. At the end of
a program every spoiled petition must have recovered by itself and go on to its next milestone, what could not be applied must
be a dead letter with its reason, and nothing forged may have been mailed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count
from random import Random
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from deploy.local.parts.service import SERVICES
from tests.faults.impossible import observed_acts
from tests.faults.impossible.act import Act, Traces
from tests.faults.impossible.honest import Honest
from tests.faults.impossible.parts import Parts
from tests.faults.impossible.victim import Victim, forged_mails, goes_on, heals
from tests.faults.judging.personal import PersonalData
from tests.faults.notes import SACRIFICE, Place, Planted
from tests.faults.watching.topic_reader import TopicReader

HEAL_SECONDS: Final = 90.0
"""Seconds that count as "never". An idle machine needs a tenth of it, a busy one more."""
_STOCK: Final = 6

_ACTS: Final = tuple(observed_acts().values())
_acts = st.sampled_from(_ACTS)
_numbers = st.integers(0, 2**16)


class Ground:
    """The environment of all programs: the system, an honest petition, and a stock of petitions to be spoiled.

    Args:
        runner: of the event loop of the system's proxies and mail server.
    """

    def __init__(self, parts: Parts, runner: asyncio.Runner) -> None:
        self.parts, self._runner = parts, runner
        self.honest = Honest(parts, "honest")
        self._stock: list[Victim] = []
        self._numbers = count(1)
        self.letters = TopicReader(parts.bootstrap_servers, prefix="nobody-", personal=PersonalData((), (), {}))

    def run(self, coroutine: Coroutine[Any, Any, list[str] | None]) -> None:
        """Run it to its end.

        Raises:
            AssertionError: it returned violations.
        """
        wrong = self._runner.run(coroutine)
        assert not wrong, "; ".join(wrong)

    async def start(self) -> None:
        """Create what every program needs."""
        await asyncio.to_thread(self.letters.start)
        await asyncio.gather(self.honest.make(), self._fill())

    async def stop(self) -> None:
        """Read no more."""
        await asyncio.to_thread(self.letters.stop)

    async def victim(self) -> Victim:
        """A petition that is not spoiled yet."""
        if not self._stock:
            await self._fill()
        return self._stock.pop()

    async def _fill(self) -> None:
        new = [Victim(self.parts, f"{SACRIFICE}{next(self._numbers)}") for _ in range(_STOCK)]
        await asyncio.gather(*(victim.make() for victim in new))
        self._stock += new

    async def letters_are_there(self, planted: dict[Place, Planted]) -> list[str]:
        """Wait for dead letters; returns those that are missing or wrong."""
        missing: dict[Place, Planted] = {}
        for _ in range(int(HEAL_SECONDS / 0.1)):
            found = {letter.source: letter for letter in list(self.letters.seen.dead_letters)}
            missing = {place: wanted for place, wanted in planted.items() if place not in found}
            if not missing:
                return [
                    f"the dead letter of {place} says {found[place].reason}, not {wanted.reason}, or is not the record"
                    for place, wanted in planted.items()
                    if found[place].reason != wanted.reason or found[place].digest != wanted.digest
                ]
            await asyncio.sleep(0.1)
        return [f"no dead letter of {place} ({wanted.reason})" for place, wanted in missing.items()]


class ImpossibleMachine(RuleBasedStateMachine):
    """One program."""

    ground: ClassVar[Ground]

    def __init__(self) -> None:
        super().__init__()
        self._hit: list[tuple[Victim, tuple[Act, ...]]] = []
        self._traces = Traces()
        self._restarted = False

    @rule(act=_acts, number=_numbers)
    def impossible_state(self, act: Act, number: int) -> None:
        """One impossible state."""
        self.ground.run(self._spoil((act,), number))

    @rule(first=_acts, second=_acts, number=_numbers)
    def two_impossible_states_of_one_petition(self, first: Act, second: Act, number: int) -> None:
        """Two acts at once, on one petition."""
        self.ground.run(self._spoil((first, second), number))

    @rule(number=_numbers)
    def somebody_signs_again(self, number: int) -> None:
        """Requests that must change nothing."""
        self.ground.run(self.ground.honest.sign_again(number))

    @rule(number=_numbers)
    def somebody_withdraws(self, number: int) -> None:
        """Withdrawals: a count that only rises would leave half of the protocol untested."""
        self.ground.run(self.ground.honest.withdraw(number, within=HEAL_SECONDS))

    @precondition(lambda self: self._hit and not self._restarted)
    @rule(service=st.sampled_from(SERVICES))
    def a_service_restarts(self, service: str) -> None:
        """A restarted service reads everything from the beginning, and runs the checks of its start."""
        self._restarted = True
        self.ground.run(self.ground.parts.restart(service))

    @invariant()
    def honest_signatures_are_counted(self) -> None:
        """Honest signatures are counted, whatever was done to other petitions."""
        if self._hit:
            self.ground.run(self.ground.honest.sign_ten(within=HEAL_SECONDS))

    def teardown(self) -> None:
        """Every spoiled petition has recovered, and what was set aside can be found."""
        if self._hit:
            self.ground.run(self._judge())

    async def _spoil(self, chosen: tuple[Act, ...], number: int) -> None:
        victim, random = await self.ground.victim(), Random(number)
        self._hit.append((victim, chosen))
        for act in chosen:
            await act.do(victim, random, self._traces)
        for service in sorted({act.wakes for act in chosen if act.wakes}):
            await self.ground.parts.restart(service)

    async def _judge(self) -> list[str]:
        async def judged(victim: Victim, chosen: tuple[Act, ...]) -> list[str]:
            wrong = await heals(victim, within=HEAL_SECONDS) or await goes_on(victim, within=HEAL_SECONDS)
            wrong += await forged_mails(victim)
            for act in chosen:
                if act.undo is not None:
                    await act.undo(victim)
            names = " and ".join(act.name for act in chosen)
            return [f"{victim.petition_id} after {names}: {line}" for line in wrong]

        found = await asyncio.gather(*(judged(victim, chosen) for victim, chosen in self._hit))
        return [line for lines in found for line in lines] + await self.ground.letters_are_there(self._traces.planted)
