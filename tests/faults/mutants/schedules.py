"""Two faults in which processes meet in a lane, for mutants that no fault of the catalogue detects every time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing
from random import Random
from typing import Final

from deploy.local.parts.service import ServiceProcess
from tests.faults.breaking.instances import another_instance, paused, start_again, with_pid
from tests.faults.fault import Fault
from tests.faults.mutants.lanes import ScheduleMissed, VerifysOffsets, decided, sign
from tests.faults.mutants.points import POSITIONS_READ, SIGNERS_CHECKED, OwnPoints
from tests.faults.world import World

_SIGNERS: Final = 100
_HIT_SECONDS: Final = 10.0
_WOKEN_SECONDS: Final = 1.0
"""Seconds in which a zombie that wakes has finished its batch, one way or the other."""


async def _zombie_in_a_lane(world: World, _: Random) -> None:
    """A verify freezes after it has computed a batch's positions. Another one decides the lane's next records meanwhile.

    Two owners of a lane begin at the same committed offset, so their batches share records, and one waits for the other at
    the rows of those signatures. They share none only if offsets were moved by hand; then only the ledger's key separates
    them. So the group's offset is set behind the frozen batch, and set back at the end.
    """
    points = OwnPoints(world.failpoints.directory)
    with closing(VerifysOffsets(world)) as offsets:
        try:
            async with another_instance(world, "verify"):
                await offsets.at_the_end()
                lane = (await offsets.lanes())[0]
                before = await offsets.end(lane)
                points.arm(POSITIONS_READ, "stop")
                await sign(world, range(_SIGNERS), [lane], way="held")
                zombie = await _stopped(world, points, POSITIONS_READ)
                others = [process for process in world.services["verify"] if process is not zombie]
                async with paused(world, others):  # quicker than starting one: PostgreSQL ends idle transactions
                    await offsets.move(lane, await offsets.end(lane))
                    await sign(world, range(_SIGNERS, 2 * _SIGNERS), [lane], way="meanwhile")
                await offsets.at_the_end([lane])
                zombie.resume()
                await asyncio.sleep(_WOKEN_SECONDS)
                await asyncio.gather(*(process.stop() for process in world.services["verify"]))
                await offsets.move(lane, before)
        finally:
            points.disarm(POSITIONS_READ)
            for process in world.services["verify"]:
                process.resume()
            await start_again(world, "verify")


async def _signers_in_two_lanes(world: World, _: Random) -> None:
    """Signers have two signatures in two lanes, as while partitions are added, and two instances decide them at once.

    The one that has the first signatures freezes before it inserts them, for less than its session, while the other one
    decides the second ones.
    """
    async with AsyncExitStack() as stack:
        offsets = stack.enter_context(closing(VerifysOffsets(world)))
        await stack.enter_async_context(another_instance(world, "verify"))
        await offsets.at_the_end()
        first, *others = await offsets.lanes()
        points = OwnPoints(world.failpoints.directory)
        points.arm(SIGNERS_CHECKED, "stop")
        stack.callback(points.disarm, SIGNERS_CHECKED)
        await sign(world, range(_SIGNERS), [first], way="first")
        slow = await _stopped(world, points, SIGNERS_CHECKED)
        stack.callback(slow.resume)
        seconds = await sign(world, range(_SIGNERS), others, way="second")
        await decided(world, seconds)
        slow.resume()
        await offsets.at_the_end()


async def _stopped(world: World, points: OwnPoints, name: str) -> ServiceProcess:
    """The process that has stopped at a point."""
    pid = await points.hit(name, within=_HIT_SECONDS)
    process = None if pid is None else with_pid(world, pid)
    if process is None:
        raise ScheduleMissed(f"no verify came to {name}")
    world.timeline.note("stopped", name=process.name, pid=pid, point=name)
    return process


ZOMBIE_IN_A_LANE: Final = Fault("verify-zombie-in-a-lane", frozenset({"verify"}), _zombie_in_a_lane)
SIGNERS_IN_TWO_LANES: Final = Fault("verify-signers-in-two-lanes", frozenset({"verify"}), _signers_in_two_lanes)
