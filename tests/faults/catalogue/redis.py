"""Faults of Valkey: it is away, or loses data."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from deploy.local.parts.valkey import Valkey
from tests.faults.catalogue import parts
from tests.faults.fault import Fault

if TYPE_CHECKING:
    from tests.faults.world import World

_REDIS: Final = frozenset({"redis"})
_LOG: Final = "appendonlydir"  # all of Valkey's data: its base file, the increments, and the manifest of both


async def _killed(world: World, random: Random) -> None:
    await parts.killed(world.valkey, world, random)


async def _restarted(world: World, random: Random) -> None:
    await parts.restarted(world.valkey, world, random)


async def _paused(world: World, random: Random) -> None:
    await parts.paused(world.valkey, world, random)


async def _flushed(world: World, random: Random) -> None:
    """FLUSHALL under traffic, sometimes twice: the second happens during the rebuild after the first."""
    async with Redis.from_url(world.redis_url) as client:
        for _ in range(random.randint(1, 2)):
            keys = await client.dbsize()
            await client.flushall()
            world.timeline.note("redis flushed", keys=keys)
            await asyncio.sleep(random.uniform(0.02, 0.6))


async def _restarted_empty(world: World, random: Random) -> None:
    """A restart without data, as of a Redis without a disk."""
    try:
        await world.valkey.kill()
        shutil.rmtree(world.valkey.data_dir / _LOG)
        world.timeline.note("redis killed, its data removed")
        await asyncio.sleep(random.uniform(0.0, 1.0))
    finally:
        await parts.up_again(world.valkey, world)


async def _restarted_older(world: World, random: Random) -> None:
    """A restart with data of some seconds ago, as after a failover to a lagging replica, or a restored backup."""
    older = world.valkey.data_dir / "older"
    try:
        await _copy_log(world.redis_url, world.valkey, older)
        world.timeline.note("redis copied")
        await asyncio.sleep(random.uniform(0.5, 2.5))
        await world.valkey.kill()
        shutil.rmtree(world.valkey.data_dir / _LOG)
        older.rename(world.valkey.data_dir / _LOG)
        world.timeline.note("redis killed, its older data put back")
    finally:
        await parts.up_again(world.valkey, world)
        shutil.rmtree(older, ignore_errors=True)


async def _copy_log(url: str, valkey: Valkey, to: Path) -> None:
    """Copy the append-only files of a running server. They hold every write that it has acknowledged, but must not be
    rewritten during the copy (valkey.io, "Persistence", "Backing up AOF persistence")."""
    async with Redis.from_url(url) as client:
        await client.config_set("auto-aof-rewrite-percentage", 0)
        try:
            while (await client.info("persistence"))["aof_rewrite_in_progress"]:
                await asyncio.sleep(0.02)
            shutil.copytree(valkey.data_dir / _LOG, to)
        finally:
            await client.config_set("auto-aof-rewrite-percentage", 100)  # the default


FAULTS: Final = (
    Fault("redis-killed", _REDIS, _killed),
    Fault("redis-restarted", _REDIS, _restarted),
    Fault("redis-paused", _REDIS, _paused),
    Fault("redis-flushed", _REDIS, _flushed),
    Fault("redis-restarted-empty", _REDIS, _restarted_empty),
    Fault("redis-restarted-older", _REDIS, _restarted_older),
)
