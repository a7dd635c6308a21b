"""Targets that are corrected after their mails failed, and notify dies meanwhile.

Each fault has its own petition, whose target has an address that the SMTP server does not know. When its mail has failed, an
administrator corrects the address. At the end every milestone is named in one mail to the right address.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tests.faults.breaking.instances import another_instance, ended, start_again, terminate
from tests.faults.fault import Broken, Fault, NotPlayed
from tests.faults.impossible.parts import parts_of_world
from tests.faults.impossible.victim import AWAY, FIRST_MILESTONE, NEXT_MILESTONE, SIGNERS, Victim
from tests.faults.notes import SACRIFICE

if TYPE_CHECKING:
    from tests.faults.breaking.smtp_sink import Mail
    from tests.faults.world import World

_SECONDS: Final = 40.0
"""Seconds for each step, on a machine under a surge; a fault may take 120 seconds in all."""

_LOOK_SECONDS: Final = 0.1
_numbers = count(1)


class NotMailed(Broken):
    """At the end the target does not have one mail about each milestone. The message says what it has."""


class Corrected(Victim):
    """A petition whose target has a wrong address at first.

    Attributes:
        right, wrong: the corrected address, and the one before it.
    """

    def __init__(self, world: World) -> None:
        super().__init__(parts_of_world(world), f"{SACRIFICE}{next(_numbers)}-corrected")
        self._world = world
        self.right, self.wrong = self.address, f"councli@{self.petition_id}.test"
        self.address = self.wrong

    async def fail(self) -> None:
        """Create the petition; returns when the mails about its first two milestones have failed, one after the other.

        Raises:
            NotMade: the petition, or a signature, was not accepted.
            NotPlayed: the mails did not fail in time, perhaps because a part was away.
        """
        self._world.smtp.unknown.add(self.wrong)
        await self.put()
        for signer in range(SIGNERS):
            await self.sign(signer)
        await self._come_true(lambda: self._failed(1), "its first mail failed")
        for signer in range(SIGNERS, NEXT_MILESTONE):
            await self.sign(signer)
        await self._come_true(lambda: self._failed(2), "its second mail failed")

    async def correct(self) -> None:
        """Correct the address.

        Raises:
            NotMade: it was not accepted.
        """
        self.address = self.right
        await self.put()
        self._world.timeline.note("target corrected", petition=self.petition_id)

    async def put(self) -> None:
        """Publish the petition with the address that it has now."""
        url = f"{self.parts.ingest_url}/v1/petitions/{self.petition_id}"
        await self._accepted(lambda: self.parts.http.put(url, json=self.body, headers=dict(self.parts.admin)))

    async def is_mailed(self) -> None:
        """Wait until the right address has mails about both milestones, and nothing is left to send.

        Raises:
            NotMailed: it was not, or twice.
        """
        deadline = time.monotonic() + _SECONDS
        while wrong := await self._wrong():
            if time.monotonic() > deadline:
                raise NotMailed(f"{self.petition_id}: {wrong}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _wrong(self) -> str | None:
        kept = [mail for mail in self._world.smtp.mails if mail.petition_id == self.petition_id and mail.kept]
        try:
            states = await self._states()
        except AWAY as error:
            return f"PostgreSQL is away: {error!r}"
        return wrong_mails(kept, self.right) or (
            None if not states & {"pending", "sending", "failed"} else f"deliveries are {states}"
        )

    async def _failed(self, mails: int) -> bool:
        async with self.parts.database() as database:
            found: int = await database.fetchval(
                "SELECT count(*) FROM deliveries WHERE petition_id = $1 AND state = 'failed'", self.petition_id
            )
        return found >= mails

    async def _states(self) -> set[str]:
        async with self.parts.database() as database:
            rows = await database.fetch("SELECT state FROM deliveries WHERE petition_id = $1", self.petition_id)
        return {row["state"] for row in rows}

    async def _come_true(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            try:
                if await condition():
                    return
            except AWAY:
                pass
            await asyncio.sleep(_LOOK_SECONDS)
        raise NotPlayed(f"{self.petition_id}: it did not come true that {what}")


def wrong_mails(kept: list[Mail], right: str) -> str | None:
    """What is wrong with the mails about a corrected petition; None if nothing is.

    A mail may have arrived several times, byte for byte the same: a fault may happen between the server's answer and storing
    it.

    Args:
        kept: all mails.
        right: the only address that may have received any.
    """
    if strangers := {mail.recipient for mail in kept} - {right}:
        return f"mails to {sorted(strangers)}"
    different = {mail.message_id: mail for mail in kept}
    if len({mail.digest for mail in kept}) > len(different):
        return "copies of one mail that are not the same"
    told = sorted(threshold for mail in different.values() for threshold in mail.milestones)
    wanted = [FIRST_MILESTONE, NEXT_MILESTONE]
    return None if told == wanted else f"told of {told}, not of {wanted}"


# -------------------------------------------------------------------------------------------------- what happens meanwhile


@dataclass(frozen=True, slots=True)
class _Killed:
    """One notify dies at a failpoint while it makes the mails due again."""

    point: str

    @asynccontextmanager
    async def __call__(self, world: World) -> AsyncIterator[None]:
        world.failpoints.arm(self.point, "kill", service="notify")
        try:
            yield
            pid = await world.failpoints.hit(self.point, service="notify", within=_SECONDS)
            world.timeline.note("failpoint hit" if pid else "failpoint not reached", point=self.point, pid=pid)
            if pid is None:
                raise NotPlayed(f"nothing came to {self.point} in {_SECONDS:g} s")
        finally:
            world.failpoints.disarm(self.point, service="notify")
            await ended(world, world.failpoints.hits(self.point, service="notify"), within=_SECONDS)
            await start_again(world, "notify")


@asynccontextmanager
async def _nothing(_world: World) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _two(world: World) -> AsyncIterator[None]:
    """Two instances see the correction."""
    async with another_instance(world, "notify"):
        yield
        await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def _down(world: World) -> AsyncIterator[None]:
    """No notify runs when the correction comes."""
    try:
        for process in list(world.services["notify"]):
            await terminate(world, process)
        yield
    finally:
        await start_again(world, "notify")


def _fault(kind: str, meanwhile: Callable[[World], Any], *touches: str) -> Fault:
    async def act(world: World, _random: Random) -> None:
        petition = Corrected(world)
        try:
            await petition.fail()
            async with meanwhile(world):
                await petition.correct()
            await petition.is_mailed()
        finally:
            world.smtp.unknown.discard(petition.wrong)

    return Fault(kind, frozenset({"corrections", "smtp", *touches}), act)


FAULTS: Final[tuple[Fault, ...]] = (
    _fault("smtp-unknown-mailbox-corrected", _nothing),
    _fault("notify-two-while-corrected", _two, "notify"),
    _fault("notify-down-while-corrected", _down, "notify"),
    _fault("notify-killed-before-requeue", _Killed("notify.before_requeue"), "notify"),
    _fault("notify-killed-after-requeue", _Killed("notify.requeued"), "notify"),
)
