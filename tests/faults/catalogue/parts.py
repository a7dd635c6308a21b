"""Faults of any part that is a process: kill, restart, freeze."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from deploy.local.parts.process import Process

if TYPE_CHECKING:
    from tests.faults.world import World


async def killed(part: Process, world: World, random: Random) -> None:
    """SIGKILL, and a start on the same data after a while."""
    try:
        world.timeline.note(f"{part.name} killed", pid=part.pid)
        await part.kill()
        await asyncio.sleep(random.uniform(0.0, 2.0))
    finally:
        await up_again(part, world)


async def restarted(part: Process, world: World, random: Random) -> None:
    """A graceful stop, and a start after a while."""
    try:
        world.timeline.note(f"{part.name} is asked to stop", pid=part.pid)
        code = await part.stop()
        world.timeline.note(f"{part.name} stopped", exit_code=code)
        await asyncio.sleep(random.uniform(0.0, 2.0))
    finally:
        await up_again(part, world)


async def paused(part: Process, world: World, random: Random) -> None:
    """SIGSTOP for some seconds: the part does not answer, and no connection ends."""
    seconds = random.uniform(1.0, 5.0)
    try:
        world.timeline.note(f"{part.name} paused", seconds=round(seconds, 2))
        part.pause()
        await asyncio.sleep(seconds)
    finally:
        part.resume()
        await part.wait_ready()
        world.timeline.note(f"{part.name} goes on")


async def up_again(part: Process, world: World) -> None:
    """Start a part that was killed or stopped, also after a cancellation."""
    await part.kill()
    await part.start()
    world.timeline.note(f"{part.name} is up again", pid=part.pid)
