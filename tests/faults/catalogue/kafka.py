"""The Kafka broker itself."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from tests.faults.catalogue import parts
from tests.faults.fault import Fault

if TYPE_CHECKING:
    from tests.faults.world import World

_KAFKA: Final = frozenset({"kafka"})


async def _killed(world: World, random: Random) -> None:
    await parts.killed(world.kafka, world, random)


async def _restarted(world: World, random: Random) -> None:
    await parts.restarted(world.kafka, world, random)


async def _paused(world: World, random: Random) -> None:
    await parts.paused(world.kafka, world, random)


FAULTS: Final = (
    Fault("kafka-killed", _KAFKA, _killed),
    Fault("kafka-restarted", _KAFKA, _restarted),
    Fault("kafka-paused", _KAFKA, _paused),
)
