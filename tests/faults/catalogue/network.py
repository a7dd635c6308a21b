"""The network between the services and a part: cut, stalled, slow, refusing. The part itself keeps running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from tests.faults.breaking.moments import wait_for_moment
from tests.faults.fault import Fault, NotPlayed

if TYPE_CHECKING:
    from tests.faults.world import World

_MAIL_SECONDS: Final = 0.002  # a connection for one mail may be shorter than this
_LATENCY: Final = {"kafka": (0.05, 0.2), "redis": (0.05, 0.2), "postgres": (0.02, 0.1), "smtp": (0.1, 0.3)}
"""Seconds each way, from, to. Less for PostgreSQL: a transaction takes several round trips."""


async def _cut(part: str, world: World, random: Random) -> None:
    for number in range(random.randint(3, 8)):
        try:
            await _somebody_is_connected(part, world)
        except NotPlayed:
            if not number:
                raise
            return  # it was cut, and no client has reconnected yet
        await asyncio.sleep(random.uniform(0.0, 0.02))  # a mail takes no longer
        world.timeline.note(f"{part} connections cut", connections=world.proxies[part].cut())
        await asyncio.sleep(random.uniform(0.1, 0.8))


async def _stalled(part: str, world: World, random: Random) -> None:
    # Up to longer than a Kafka session (3 s) and Redis' timeout (5 s): a client has given up by then, and what it sent
    # before arrives all the same when the stall is over.
    seconds = random.uniform(1.0, 6.5)
    await _somebody_is_connected(part, world)
    with world.proxies[part].stalled():
        world.timeline.note(f"{part} stalled", seconds=round(seconds, 2))
        await asyncio.sleep(seconds)
    world.timeline.note(f"{part} no longer stalled")


async def _refused(part: str, world: World, random: Random) -> None:
    seconds = random.uniform(1.0, 5.0)
    await _somebody_is_connected(part, world)
    with world.proxies[part].refusing():
        world.timeline.note(f"{part} refuses connections", seconds=round(seconds, 2))
        await asyncio.sleep(seconds)
    world.timeline.note(f"{part} takes connections again")


async def _slow(part: str, world: World, random: Random) -> None:
    latency, seconds = random.uniform(*_LATENCY[part]), random.uniform(2.0, 5.0)
    await _somebody_is_connected(part, world)
    with world.proxies[part].slow(latency):
        world.timeline.note(f"{part} slow", latency=round(latency, 3), seconds=round(seconds, 2))
        await asyncio.sleep(seconds)
    world.timeline.note(f"{part} no longer slow")


async def _somebody_is_connected(part: str, world: World) -> None:
    """Wait for a connection: to SMTP there is one only while mails are sent."""
    await wait_for_moment(
        world, f"a connection to {part}", lambda: bool(world.proxies[part].connections), look=_MAIL_SECONDS
    )


_WAYS: Final[dict[str, Callable[[str, World, Random], Awaitable[None]]]] = {
    "cut": _cut,
    "stalled": _stalled,
    "refused": _refused,
    "slow": _slow,
}

FAULTS: Final = tuple(
    Fault(f"{part}-{way}", frozenset({part}), partial(act, part)) for part in _LATENCY for way, act in _WAYS.items()
)
