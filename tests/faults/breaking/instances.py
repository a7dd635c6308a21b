"""Operations of faults on instances of services, and their reversal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from deploy.local.parts.process import PartFailed
from deploy.local.parts.service import ServiceName, ServiceProcess

if TYPE_CHECKING:
    from tests.faults.world import World

SESSION_SECONDS: Final = 3.0
"""The world's KAFKA_SESSION_TIMEOUT_MS, in seconds."""

_STOP_SECONDS: Final = 20.0


async def start_again(world: World, *services: ServiceName) -> None:
    """Start every instance of these services that is not running, without waiting until it is ready."""
    for service in services:
        for process in list(world.services[service]):
            if not process.running:
                await process.wait()  # it has ended, perhaps by itself: this records the end
                await process.launch()
                world.timeline.note("started again", name=process.name, pid=process.pid)


async def terminate(world: World, process: ServiceProcess) -> None:
    """Stop a process gracefully, and require exit code 0.

    Raises:
        PartFailed: it had to be killed, or its exit code is not 0.
    """
    world.timeline.note("asked to end", name=process.name, pid=process.pid)
    code = await process.stop(_STOP_SECONDS)
    world.timeline.note("ended", name=process.name, exit_code=code)
    if code != 0:
        raise PartFailed(f"{process.name} did not end well after SIGTERM. {process.describe_end()}")


@asynccontextmanager
async def another_instance(world: World, service: ServiceName) -> AsyncIterator[ServiceProcess]:
    """One more instance, ready, while the body runs. It must then stop gracefully.

    Raises:
        PartFailed: it does not become ready, or does not end well.
    """
    process = await world.add_instance(service)
    try:
        yield process
    finally:
        process.resume()
        await world.remove_instance(process)
    if process.exit_code != 0:
        raise PartFailed(f"{process.name} did not leave well. {process.describe_end()}")


@asynccontextmanager
async def paused(world: World, processes: Iterable[ServiceProcess]) -> AsyncIterator[None]:
    """Freeze the processes while the body runs."""
    processes = list(processes)
    try:
        for process in processes:
            process.pause()
            world.timeline.note("paused", name=process.name, pid=process.pid)
        yield
    finally:
        for process in processes:
            process.resume()
            world.timeline.note("resumed", name=process.name, pid=process.pid)


def with_pid(world: World, pid: int) -> ServiceProcess | None:
    """The instance with this `pid`; None if it has ended, or is not ours."""
    return next((process for process in world.service_processes if process.pid == pid), None)


async def ended(world: World, pids: Iterable[int], *, within: float) -> bool:
    """Wait until none of our instances has one of these pids. Returns whether that happened in time."""
    pids = set(pids)
    deadline = time.monotonic() + within
    while any(process.pid in pids for process in world.service_processes):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
