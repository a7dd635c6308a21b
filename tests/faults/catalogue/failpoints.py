"""Faults at failpoints, named places in our code that no signal from outside would hit: see `shared.runtime.failpoints`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

import httpx
import redis.asyncio

from deploy.local.parts.process import PartFailed
from deploy.local.parts.service import ServiceName, ServiceProcess
from tests.faults.breaking.instances import another_instance, ended, start_again, with_pid
from tests.faults.breaking.moments import wait_for_moment
from tests.faults.catalogue.records import contradictions
from tests.faults.fault import Fault, NotPlayed
from tests.faults.notes import notes_of

if TYPE_CHECKING:
    from tests.faults.world import World

_PROVOKED: Final = 8
_PROVOKED_SECONDS: Final = 12.0
"""Seconds until a point that no process has reached is provoked again, and how often."""

_ENDED_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A failpoint as the place of a fault.

    Attributes:
        where: ends the fault's name: ``verify-killed-<where>``.
        point: of `shared.runtime.failpoints.POINTS`.
        provoke: makes a process reach the point, if traffic alone does not.
        touches: what `provoke` affects beside the service.
    """

    service: ServiceName
    where: str
    point: str
    provoke: Callable[[World], Awaitable[None]] | None = None
    touches: frozenset[str] = frozenset()

    def fault(self, how: str, act: Callable[[World, Random, _Place], Awaitable[None]]) -> Fault:
        """An action at such a place, as a fault of the catalogue."""

        async def here(world: World, random: Random) -> None:
            await act(world, random, self)

        return Fault(f"{self.service}-{how}-{self.where}", frozenset({self.service}) | self.touches, here)

    async def reached(self, world: World, action: str) -> int:
        """Arm the point and wait until a process reaches it. Returns its pid.

        Raises:
            NotPlayed: none did.
        """
        world.failpoints.arm(self.point, action, service=self.service)
        try:
            await self._until_hit(world)
        except NotPlayed:
            world.timeline.note("failpoint not reached", point=self.point, action=action)
            raise
        (pid, *_) = world.failpoints.hits(self.point, service=self.service)
        world.timeline.note("failpoint hit", point=self.point, action=action, pid=pid)
        return pid

    async def _until_hit(self, world: World) -> None:
        def hit() -> bool:
            return bool(world.failpoints.hits(self.point, service=self.service))

        what = f"something at {self.point}"
        if self.provoke is None:
            await wait_for_moment(world, what, hit)
            return
        for left in reversed(range(_PROVOKED)):
            await self.provoke(world)
            try:
                await wait_for_moment(world, what, hit, within=_PROVOKED_SECONDS)
                return
            except NotPlayed:
                if not left:
                    raise

    def lift(self, world: World) -> list[int]:
        """Disarm the point. Returns the pids that have claimed the action; they may be executing it."""
        world.failpoints.disarm(self.point, service=self.service)
        return world.failpoints.hits(self.point, service=self.service)


async def _killed(world: World, random: Random, place: _Place) -> None:
    """A crash at the point."""
    try:
        await place.reached(world, "kill")
    finally:
        await ended(world, place.lift(world), within=_ENDED_SECONDS)
        await asyncio.sleep(random.uniform(0.0, 0.5))
        await start_again(world, place.service)


async def _crashed(world: World, random: Random, place: _Place) -> None:
    """A bug at the point: the process must end by itself, with exit code 1."""
    process: ServiceProcess | None = None
    try:
        pid = await place.reached(world, "raise")
        process = with_pid(world, pid)
    finally:
        await ended(world, place.lift(world), within=_ENDED_SECONDS)
        code = None if process is None else process.exit_code
        await start_again(world, place.service)
    if process is not None and code != 1:
        raise PartFailed(f"{process.name} met a bug at {place.point}; its exit code was {code}, not 1")


async def _failing(world: World, random: Random, place: _Place) -> None:
    """Connections that break at the point, several times in a row."""
    try:
        await place.reached(world, "fail")
        with suppress(NotPlayed):  # once it has failed already
            for _ in range(random.randint(1, 3)):
                await place.reached(world, "fail")
    finally:
        place.lift(world)


async def _slow(world: World, random: Random, place: _Place) -> None:
    """A wait at the point that is longer than a rebalance waits, while the rest of the process goes on."""
    seconds = round(random.uniform(3.5, 6.0), 2)
    try:
        await place.reached(world, f"sleep {seconds}")
        async with another_instance(world, place.service):  # the group wants the partitions meanwhile
            await asyncio.sleep(random.uniform(0.2, 1.0))
    finally:
        place.lift(world)


async def _zombie(world: World, random: Random, place: _Place) -> None:
    """Frozen at the point until another instance has taken over; then the process goes on with its batch."""
    process = None
    try:
        pid = await place.reached(world, "stop")
        process = with_pid(world, pid)
        if process is None:
            raise PartFailed(f"the process {pid} that stopped at {place.point} is none of ours")
        async with another_instance(world, place.service):  # ready when the frozen one's session has ended
            await asyncio.sleep(random.uniform(0.5, 2.0))
            process.resume()
            world.timeline.note("zombie resumed", name=process.name, pid=pid)
            await asyncio.sleep(random.uniform(0.5, 1.5))
    finally:
        place.lift(world)
        for instance in world.services[place.service]:
            instance.resume()
        await start_again(world, place.service)


# --------------------------------------------------------------------------------------------------- making it happen


async def _redis_emptied(world: World) -> None:
    """Redis loses everything: tally has to rebuild."""
    async with redis.asyncio.Redis.from_url(world.redis_url) as client:
        await client.flushall()
    world.timeline.note("redis emptied")


async def _contradictions(world: World) -> None:
    """Publish commands that cannot be applied among the others."""
    await contradictions(world, Random())


async def _administered(world: World) -> None:
    """An administrator changes a petition, with an empty change."""
    url = f"{world.ingest_urls[0]}/v1/petitions/{notes_of(world).petitions[0]}"
    headers = {**world.admin, "content-type": "application/merge-patch+json"}
    with suppress(httpx.TransportError):  # the process dies there
        await world.http.patch(url, content="{}", headers=headers)


def _rebalance(service: ServiceName) -> Callable[[World], Awaitable[None]]:
    """Start and stop another instance: partitions are reassigned."""

    async def provoke(world: World) -> None:
        try:
            async with another_instance(world, service):
                pass
        except PartFailed as ended:  # the new instance may be the one that reached the point
            world.timeline.note("instance lost", service=service, why=str(ended).splitlines()[0])

    return provoke


_EVERYWHERE: Final = (
    _Place("ingest", "before-publish", "ingest.before_publish"),
    _Place("ingest", "before-answer", "ingest.acknowledged"),
    _Place("ingest", "before-change", "ingest.change_asked", _administered, frozenset({"kafka", "postgres"})),
    _Place("ingest", "after-change", "ingest.change_stored", _administered, frozenset({"kafka", "postgres"})),
    _Place("verify", "before-work", "consumer.decoded"),
    _Place("verify", "after-set-aside", "consumer.set_aside", _contradictions, frozenset({"contradictions"})),
    _Place("verify", "before-commit", "verify.before_commit"),
    _Place("verify", "before-publish", "verify.committed"),
    _Place("verify", "between-publishes", "producer.batch_acknowledged"),
    _Place("verify", "before-rejections", "verify.facts_published"),
    _Place("verify", "before-offset-commit", "consumer.processed"),
    _Place("verify", "after-offset-commit", "consumer.committed"),
    _Place("verify", "when-revoked", "consumer.revoking", _rebalance("verify")),
    _Place("verify", "when-assigned", "consumer.assigned", _rebalance("verify")),
    _Place("tally", "before-count", "tally.before_apply"),
    _Place("tally", "after-count", "tally.applied"),
    _Place("tally", "before-milestone-publish", "tally.milestone_recorded"),
    _Place("tally", "after-milestone-publish", "tally.milestone_published"),
    _Place("tally", "between-milestone-marks", "tally.milestone_marked"),
    _Place("tally", "before-swap", "tally.shadow_written", _redis_emptied, frozenset({"redis"})),
    _Place("tally", "after-swap", "tally.swapped", _redis_emptied, frozenset({"redis"})),
    _Place("tally", "before-witness", "tally.rebuilt", _redis_emptied, frozenset({"redis"})),
    _Place("tally", "before-snapshots", "tally.snapshots_read"),
    _Place("tally", "after-snapshots", "tally.snapshots_published"),
    _Place("tally", "before-offset-commit", "consumer.processed"),
    _Place("tally", "when-revoked", "consumer.revoking", _rebalance("tally")),
    _Place("tally", "when-assigned", "consumer.assigned", _rebalance("tally")),
    _Place("notify", "after-rows", "notify.stored"),
    _Place("notify", "before-claim", "notify.before_claim"),
    _Place("notify", "before-smtp", "notify.claimed"),
    _Place("notify", "after-smtp", "notify.accepted"),
    _Place("notify", "before-offset-commit", "consumer.processed"),
)


def _places(service: ServiceName, *points: str) -> list[_Place]:
    found = [place for place in _EVERYWHERE if place.service == service and place.point in points]
    assert len(found) == len(points)
    return found


_ZOMBIES: Final = (
    *_places("verify", "verify.before_commit", "verify.committed", "verify.facts_published", "consumer.processed"),
    *_places("tally", "tally.before_apply", "tally.applied", "tally.milestone_recorded", "tally.snapshots_read"),
    *_places("tally", "tally.shadow_written", "consumer.processed"),
    *_places("notify", "notify.before_claim", "notify.claimed", "notify.accepted", "consumer.processed"),
)

FAULTS: Final[tuple[Fault, ...]] = (
    *(place.fault("killed", _killed) for place in _EVERYWHERE),
    *(place.fault("zombie", _zombie) for place in _ZOMBIES),
    *(place.fault("failing", _failing) for place in _places("verify", "verify.before_commit", "verify.committed")),
    *(place.fault("failing", _failing) for place in _places("tally", "tally.before_apply", "tally.applied")),
    *(place.fault("slow", _slow) for place in _places("verify", "verify.before_commit", "verify.committed")),
    *(place.fault("slow", _slow) for place in _places("tally", "tally.before_apply", "tally.milestone_recorded")),
    *(place.fault("crashed", _crashed) for place in _places("verify", "verify.committed")),
    *(place.fault("crashed", _crashed) for place in _places("tally", "tally.applied")),
)
