"""Faults of whole processes: killed, terminated, frozen, added and removed; and clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Final

from deploy.local.parts.service import SERVICES, ServiceName
from tests.faults.breaking.clock import SEEN_AFTER_SECONDS, clock_wrong_by
from tests.faults.breaking.instances import SESSION_SECONDS, another_instance, paused, start_again, terminate
from tests.faults.fault import Fault

if TYPE_CHECKING:
    from tests.faults.world import World


def _killed(*services: ServiceName) -> Fault:
    """SIGKILL, all at the same moment; restarted after a while."""

    async def act(world: World, random: Random) -> None:
        try:
            await asyncio.gather(*(world.services[service][0].kill() for service in services))
            world.timeline.note("killed", services=services)
            await asyncio.sleep(random.uniform(0.1, 3.0))
        finally:
            await start_again(world, *services)

    return Fault(f"{'-and-'.join(services)}-killed", frozenset(services), act)


def _killed_while_starting(service: ServiceName) -> Fault:
    """A crash loop: killed repeatedly, at random moments of its start."""

    async def act(world: World, random: Random) -> None:
        process = world.services[service][0]
        try:
            for _ in range(3):
                await process.kill()
                await start_again(world, service)
                await asyncio.sleep(random.uniform(0.5, 2.5))
            await process.kill()
        finally:
            await start_again(world, service)

    return Fault(f"{service}-killed-while-starting", frozenset({service}), act)


def _terminated(service: ServiceName) -> Fault:
    """SIGTERM, as at every deployment: it must end by itself, with exit code 0."""

    async def act(world: World, random: Random) -> None:
        try:
            await terminate(world, world.services[service][0])
            await asyncio.sleep(random.uniform(0.0, 1.0))
        finally:
            await start_again(world, service)

    return Fault(f"{service}-terminated", frozenset({service}), act)


def _paused(service: ServiceName) -> Fault:
    """Frozen for longer than its session, without another instance to take over: on waking, it has to rejoin the group."""

    async def act(world: World, random: Random) -> None:
        async with paused(world, world.services[service][:1]):
            await asyncio.sleep(SESSION_SECONDS + random.uniform(0.5, 2.0))

    return Fault(f"{service}-paused", frozenset({service}), act)


def _paused_briefly(service: ServiceName) -> Fault:
    """Frozen repeatedly, for less than its session: it must keep its partitions."""

    async def act(world: World, random: Random) -> None:
        for _ in range(4):
            async with paused(world, world.services[service][:1]):
                await asyncio.sleep(random.uniform(0.2, SESSION_SECONDS / 3))
            await asyncio.sleep(random.uniform(0.1, 0.5))

    return Fault(f"{service}-paused-briefly", frozenset({service}), act)


def _replaced_while_paused(service: ServiceName) -> Fault:
    """A zombie: frozen until another instance has its partitions, then resumed with its batch."""

    async def act(world: World, random: Random) -> None:
        async with another_instance(world, service):
            async with paused(world, world.services[service][:1]):
                await asyncio.sleep(SESSION_SECONDS + random.uniform(1.0, 2.5))
            await asyncio.sleep(random.uniform(0.5, 1.5))

    return Fault(f"{service}-paused-and-replaced", frozenset({service}), act)


def _scaled(service: ServiceName) -> Fault:
    """A second and a third instance join under load, and leave again."""

    async def act(world: World, random: Random) -> None:
        async with AsyncExitStack() as joined:
            for _ in range(2):
                await joined.enter_async_context(another_instance(world, service))
                await asyncio.sleep(random.uniform(0.2, 1.0))

    return Fault(f"{service}-scaled", frozenset({service}), act)


def _killed_among_others(service: ServiceName) -> Fault:
    """One of two is killed: the other one has to take over its partitions."""

    async def act(world: World, random: Random) -> None:
        async with another_instance(world, service):
            try:
                await world.services[service][0].kill()
                world.timeline.note("killed", services=(service,))
                await asyncio.sleep(SESSION_SECONDS + random.uniform(0.5, 1.5))
            finally:
                await start_again(world, service)

    return Fault(f"{service}-killed-among-two", frozenset({service}), act)


def _deployed(service: ServiceName) -> Fault:
    """A rolling deployment: a new instance starts, the old one stops, starts again, and the new one stops."""

    async def act(world: World, random: Random) -> None:
        async with another_instance(world, service):
            first = world.services[service][0]
            try:
                await terminate(world, first)
            finally:
                await start_again(world, service)
            await first.wait_ready()
            await asyncio.sleep(random.uniform(0.0, 0.5))

    return Fault(f"{service}-deployed", frozenset({service}), act)


def _clock(kind: str, jumps: Sequence[int]) -> Fault:
    """All services' clocks jump by so many seconds, one jump after the other, then back."""

    async def act(world: World, random: Random) -> None:
        for seconds in jumps:
            with clock_wrong_by(world.clock, seconds):
                world.timeline.note("clocks wrong", by_seconds=seconds)
                await asyncio.sleep(SEEN_AFTER_SECONDS + random.uniform(0.5, 2.5))
        world.timeline.note("clocks right")
        await asyncio.sleep(SEEN_AFTER_SECONDS)

    return Fault(f"clock-{kind}", frozenset({"clock"}), act)


_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR

FAULTS: Final[tuple[Fault, ...]] = (
    *(_killed(service) for service in SERVICES),
    *(_terminated(service) for service in SERVICES),
    *(_paused(service) for service in SERVICES),
    *(_replaced_while_paused(service) for service in SERVICES),
    *(_scaled(service) for service in SERVICES),
    *(_deployed(service) for service in SERVICES),
    _paused_briefly("verify"),
    _paused_briefly("tally"),
    _killed_among_others("verify"),
    _killed_among_others("tally"),
    _killed_among_others("notify"),
    _killed_while_starting("verify"),
    _killed_while_starting("tally"),
    _killed("ingest", "verify"),
    _killed("verify", "tally"),
    _killed("tally", "notify"),
    _killed(*SERVICES),
    _clock("an-hour-ahead", [_HOUR]),
    _clock("an-hour-behind", [-_HOUR]),
    _clock("two-days-ahead", [2 * _DAY]),
    _clock("a-day-behind", [-_DAY]),
    _clock("to-and-fro", [_HOUR, -_HOUR, 90, -90]),
)
