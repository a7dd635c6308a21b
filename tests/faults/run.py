"""One run: a surge with faults, quiet, and the checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import httpx
from redis.exceptions import RedisError

from deploy.local.parts.process import PartFailed
from shared.contract.events import WithdrawCommand
from shared.contract.identity import command_id
from tests.faults.breaking.moments import Moments
from tests.faults.fault import Broken, Fault, NotPlayed
from tests.faults.judging import logs
from tests.faults.judging.invariants import check
from tests.faults.judging.log_rules import IMPOSSIBLE_BEFORE
from tests.faults.notes import notes_of
from tests.faults.result import RunResult
from tests.faults.schedule import Planned, RunPlan
from tests.faults.sending.sender import NotAccepted, Sender
from tests.faults.sending.surge import WITHDRAWN, WITHDRAWN_BY_A_DUPLICATE, Surge
from tests.faults.watching.observers import Observer
from tests.faults.watching.quiet import STUCK_SECONDS, wait_for_quiet
from tests.faults.watching.recovery import NotRecovered, Recovery
from tests.faults.world import World

_FAULT_SECONDS: Final = 240.0
_KNOWN_SECONDS: Final = 30.0

Progress = Callable[[str, int, int], None]
"""Called with the current activity, and how many of how many submissions are accepted."""


def _silent(_stage: str, _done: int, _of: int) -> None:
    pass


class Run:
    """Plays one plan in a world.

    Args:
        world: running, ready, and quiet.
        plan: what to play.
        progress: called with the progress.
        stuck_seconds: after so long without a change, missing signatures count as lost.
    """

    def __init__(
        self, world: World, plan: RunPlan, *, progress: Progress = _silent, stuck_seconds: float = STUCK_SECONDS
    ) -> None:
        self._world, self._plan, self._progress = world, plan, progress
        self._stuck_seconds = stuck_seconds
        self._result = RunResult(plan.number)
        self._surge = Surge(number=plan.number, signatures=plan.signatures, random=plan.random("surge"))
        self._sender = Sender(world, self._surge, on_accepted=self._on_accepted, too_early=self._too_early)
        self._recovery = Recovery(world, self._surge, self._sender)
        self._moments = Moments(self._surge, self._sender)
        self._accepted = 0
        self._sent = False
        self._begun: set[Planned] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._under_way: list[str] = []

    async def play(self) -> RunResult:
        """Play the whole plan, then check everything."""
        began = time.monotonic()
        world, surge, result = self._world, self._surge, self._result
        world.timeline.run = self._plan.number
        world.timeline.note(
            "run begins",
            seed=self._plan.seed,
            signatures=self._plan.signatures,
            faults={planned.fault.kind: planned.after for planned in self._plan.faults},
        )
        log_mark = logs.mark(world)
        async with Observer(world, surge) as observer:
            observer.notes.cause_moment = self._moments.cause
            try:
                await self._make_petitions()
                await self._sender.send(surge.before, rate=1_000)
                await self._wait_for_count(surge.cold, len(surge.before))
                await self._storm()
                await self._moments.finish()
                await world.is_ready()
                await self._withdraw()
            except (NotAccepted, NotRecovered, PartFailed, TimeoutError, httpx.HTTPError) as error:
                self._violated(f"{type(error).__name__}: {error}")
            self._tell("waiting for quiet")
            for line in await wait_for_quiet(world, surge, observer, stuck_seconds=self._stuck_seconds):
                self._violated(f"never came: {line}")
            await self._judge(observer)
        before = {IMPOSSIBLE_BEFORE} if notes_of(world).spoiled.letters else set()
        for line in await logs.unexplained(world, log_mark, surge, touched=self._touched() | before):
            self._violated(line)
        result.signatures = len(surge.accepted)
        result.seconds = time.monotonic() - began
        world.timeline.note("run ends", ok=result.ok, violations=result.violations, answers=dict(self._sender.answers))
        return result

    async def _judge(self, observer: Observer) -> None:
        result = self._result
        try:
            observed = await observer.observed()
        except (asyncpg.PostgresError, RedisError, httpx.HTTPError, OSError) as error:
            self._violated(f"the system cannot be observed: {error!r}")
            return
        verdict = check(self._surge, observed, kinds=list(result.faults), touches=self._touched())
        for line in verdict.violations:
            self._violated(line)
        result.lost, result.double = verdict.lost, verdict.double
        result.milestones_double, result.mail_window = verdict.milestones_double, verdict.mail_window

    def _violated(self, what: str) -> None:
        self._world.timeline.note("violation", text=what)
        self._result.violations.append(what)

    def _touched(self) -> frozenset[str]:
        return frozenset[str]().union(*(planned.fault.touches for planned in self._plan.faults))

    # ---------------------------------------------------------------------------------------------- before the faults

    async def _make_petitions(self) -> None:
        self._tell("making petitions")
        for petition in self._surge.petitions.values():
            url = f"{self._world.ingest_urls[0]}/v1/petitions/{petition.petition_id}"
            answer = await self._world.http.put(url, json=petition.body, headers=self._world.admin)
            if answer.status_code not in (httpx.codes.OK, httpx.codes.CREATED):
                raise NotAccepted(f"petition {petition.petition_id}: {answer.status_code} {answer.text[:200]}")
        for petition_id in self._surge.petitions:
            await self._wait_for_count(petition_id, 0)

    async def _wait_for_count(self, petition_id: str, wanted: int) -> None:
        async with asyncio.timeout(_KNOWN_SECONDS):
            while await self._recovery.count(petition_id) < wanted:
                await asyncio.sleep(0.05)

    # ------------------------------------------------------------------------------------------- surge and faults

    async def _storm(self) -> None:
        self._tell("surge")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send())
            for place, planned in enumerate(self._plan.faults):
                group.create_task(self._play_fault(place, planned))

    async def _send(self) -> None:
        try:
            await self._sender.send(self._surge.submissions, rate=self._plan.rate)
        except* NotAccepted as errors:
            self._violated(f"NotAccepted: {errors.exceptions[0]}")
        finally:
            self._sent = True  # the surge is over: faults that wait for more of it must go on

    def _on_accepted(self, accepted: int) -> None:
        self._accepted = accepted
        self._tell("surge")

    def _too_early(self, accepted: int) -> bool:
        """Whether due faults still wait for their turn: the surge must not end before they have begun."""
        slack = self._plan.signatures // 20
        return any(planned.after + slack <= accepted for planned in self._plan.faults if planned not in self._begun)

    async def _play_fault(self, place: int, planned: Planned) -> None:
        fault = planned.fault
        while self._accepted < planned.after and not self._sent:
            await asyncio.sleep(0.02)
        async with self._in_turn(fault.touches):
            self._begun.add(planned)
            self._under_way.append(fault.kind)
            self._world.timeline.note("fault begins", kind=fault.kind, accepted=self._accepted)
            self._tell("surge")
            try:
                played = await self._act(place, fault)
                seconds = await self._recovery.measure()
            except (Broken, NotRecovered, PartFailed, TimeoutError, NotAccepted) as error:
                self._violated(f"{fault.kind}: {type(error).__name__}: {error}")
            else:
                self._world.timeline.note("recovered", kind=fault.kind, after_seconds=round(seconds, 3))
                if played:
                    self._result.recoveries.append((fault.kind, seconds))
            finally:
                self._under_way.remove(fault.kind)
                self._tell("surge")

    async def _act(self, place: int, fault: Fault) -> bool:
        """Play a fault; returns whether there was anything to hit."""
        try:
            async with asyncio.timeout(_FAULT_SECONDS):
                await fault.act(self._world, self._plan.random(f"fault/{place}"))
        except NotPlayed as error:
            self._world.timeline.note("fault not played", kind=fault.kind, why=str(error))
            self._result.not_played.append((fault.kind, str(error)))
            return False
        self._world.timeline.note("fault lifted", kind=fault.kind)
        self._result.faults[fault.kind] += 1
        return True

    @asynccontextmanager
    async def _in_turn(self, touches: frozenset[str]) -> AsyncIterator[None]:
        """Lock what a fault touches, always in the same order, so that no two deadlock."""
        async with AsyncExitStack() as held:
            for name in sorted(touches):
                await held.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            yield

    # -------------------------------------------------------------------------------------------- after the faults

    async def _withdraw(self) -> None:
        """Withdraw some signatures that count: a count that only rises would leave half of the protocol untested."""
        self._tell("withdrawing")
        signers = self._surge.signatures_of(self._surge.prefix + "side")
        once = [signatures for signatures in signers.values() if len(signatures) == 1]
        several = [signatures for signatures in signers.values() if len(signatures) > 1]
        for signatures in once[:WITHDRAWN] + several[:WITHDRAWN_BY_A_DUPLICATE]:
            decided = {signature_id: await self._decided(signature_id) for signature_id in signatures}
            standing = [signature_id for signature_id, state in decided.items() if state == "verified"]
            if len(standing) != 1:
                continue  # the checks decide which of them counts, and that it counts once
            # By the id of the last duplicate, if there is one: this withdraws the signature that stands.
            named = [signature_id for signature_id in signatures if signature_id not in standing] or standing
            answer = await self._command(named[-1], "withdraw")
            if answer.status_code != httpx.codes.ACCEPTED:
                raise NotAccepted(f"withdrawing: {answer.status_code} {answer.text[:200]}")
            self._surge.withdrawn[standing[0]] = str(command_id(UUID(named[-1]), WithdrawCommand.TYPE))

    async def _command(self, signature_id: str, command: str) -> httpx.Response:
        url = f"{self._world.ingest_urls[0]}/v1/signatures/{signature_id}/{command}"
        return await self._world.http.post(url, headers=self._world.admin)

    async def _decided(self, signature_id: str) -> str:
        """verify's outcome of a signature, as soon as there is one."""
        url = f"{self._world.ingest_urls[0]}/v1/signatures/{signature_id}"
        async with asyncio.timeout(_KNOWN_SECONDS):
            while (state := await self._state(url)) in ("", "submitted"):
                await asyncio.sleep(0.1)
        return state

    async def _state(self, url: str) -> str:
        return str((await self._world.http.get(url, headers=self._world.admin)).json().get("status", ""))

    def _tell(self, stage: str) -> None:
        faults = f": {', '.join(self._under_way)}" if self._under_way else ""
        self._progress(stage + faults, min(self._accepted, len(self._surge.submissions)), len(self._surge.submissions))
