"""Plays each mutant's schedule twice: against the product, which has to pass, and against the mutant, which has to fail."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from deploy.local.parts.service import ServiceName
from shared import redis as shared_redis
from tests.faults.mutants.directed import Directed
from tests.faults.mutants.mutant import Mutant
from tests.faults.run import Run
from tests.faults.schedule import Planned, RunPlan
from tests.faults.watching.quiet import STUCK_SECONDS
from tests.faults.world import PARTITIONS, World

_RATE: Final = 1_500.0
_MUTANT_STUCK_SECONDS: Final = 8.0
"""Seconds: what a mutant has lost never comes; what is only slow has come by then."""

_SETTINGS: Final = {"TALLY_AUDIT_SECONDS": "0"}
"""No audits: they would heal the counts of a broken protocol."""

_HOME_SECONDS: Final = 20.0
_MOST_LETTERS: Final = 140


@dataclass(slots=True)
class Outcome:
    """The result of one mutant.

    Attributes:
        control: violations of the product under the mutant's schedule; must be empty.
        violations: of the mutant; None when it was not played.
        caught_by: the expected one among them.
    """

    mutant: Mutant
    faults: tuple[str, ...]
    control: list[str] = field(default_factory=list)
    violations: list[str] | None = None
    caught_by: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the product passed, and the mutant, if it was played, was detected."""
        return not self.control and (self.violations is None or self.caught_by is not None)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "mutant": self.mutant.name,
            "broken": self.mutant.broken,
            "faults": list(self.faults),
            "caught": self.caught_by is not None,
            "caught_by": self.caught_by,
            "violations": None if self.violations is None else len(self.violations),
            "control": "failed" if self.control else "passed",
            "seconds": round(self.seconds, 1),
        }


@dataclass(slots=True)
class Commands:
    """The command that a world currently starts as a service."""

    mutant: Mutant | None = None
    whole: bool = True

    def __call__(self, service: ServiceName) -> list[str]:
        mutant = self.mutant
        if mutant is None or mutant.service != service or (self.whole and mutant.points is None):
            return [sys.executable, "-m", f"services.{service}"]
        whole = ["--whole"] if self.whole else []
        return [sys.executable, "-m", "tests.faults.mutants.run", mutant.name, service, *whole]


Told = Callable[[str], None]


async def play(
    chosen: Sequence[tuple[Mutant, Directed]],
    *,
    seed: int,
    signatures: int,
    control_only: bool,
    state_dir: Path,
    tell: Told,
) -> list[Outcome]:
    """Play the schedules of `chosen`, each against the product and, unless `control_only`, against the mutant.

    Mutants share a world one after the other, each with its own petitions, unless they spoil it.

    Raises:
        PartFailed: the parts or services could not be started.
    """
    waiting = sorted(chosen, key=lambda pair: pair[0].spoils_its_world)
    outcomes: list[Outcome] = []
    number = worlds = 0
    while waiting:
        worlds += 1
        place = state_dir / f"world-{worlds}"
        shutil.rmtree(place, ignore_errors=True)
        tell("starting Kafka, PostgreSQL, Valkey and the services")
        commands = Commands()
        async with World(place, service_command=commands, settings=_SETTINGS) as world:
            while waiting:
                mutant, schedule = waiting.pop(0)
                began = time.monotonic()
                outcome = Outcome(mutant, tuple(fault.kind for _, fault in schedule.faults))
                outcomes.append(outcome)
                number += 1
                tell(f"{mutant.name}: the product under {', '.join(outcome.faults)}")
                await _become(world, commands, mutant, whole=True)
                outcome.control = await _violations(world, schedule, number, seed, signatures)
                if not control_only:
                    number += 1
                    tell(f"{mutant.name}: {mutant.broken}")
                    await _become(world, commands, mutant, whole=False)
                    outcome.violations = await _violations(
                        world, schedule, number, seed, signatures, stuck_seconds=_MUTANT_STUCK_SECONDS
                    )
                    found = next(filter(schedule.expected, outcome.violations), None)
                    outcome.caught_by = found and _shortened(found)
                outcome.seconds = time.monotonic() - began
                if outcome.control or (mutant.spoils_its_world and not control_only):
                    break
                await _become(world, commands, mutant, whole=True)
    return outcomes


def _shortened(violation: str) -> str:
    return violation if len(violation) <= _MOST_LETTERS else f"{violation[:_MOST_LETTERS]} …"


async def _become(world: World, commands: Commands, mutant: Mutant, *, whole: bool) -> None:
    """Start the mutant's service as the mutant, or as the product with the mutant's failpoints."""
    before = commands(mutant.service)
    commands.mutant, commands.whole = mutant, whole
    if mutant.schema is not None and not whole:
        connection = await asyncpg.connect(world.postgres_url)
        try:
            await connection.execute(mutant.schema)
        finally:
            await connection.close()
    if commands(mutant.service) != before:
        for process in world.services[mutant.service]:
            await process.restart()
        await world.is_ready()
    if whole:
        await _at_home_in_redis(world)


async def _at_home_in_redis(world: World) -> None:
    """Wait until tally has checked Redis after its start: that rebuild belongs to no run.

    Raises:
        TimeoutError: it has not.
    """
    redis = shared_redis.connect(world.redis_url)
    database = await asyncpg.connect(world.postgres_url)
    query = "SELECT count(*) FROM redis_witness WHERE identity = $1"
    try:
        identity = await shared_redis.identity(redis)
        async with asyncio.timeout(_HOME_SECONDS):
            while await database.fetchval(query, identity) < PARTITIONS:
                await asyncio.sleep(0.05)
    finally:
        await redis.aclose()
        await database.close()


async def _violations(
    world: World, schedule: Directed, number: int, seed: int, signatures: int, stuck_seconds: float = STUCK_SECONDS
) -> list[str]:
    plan = RunPlan(
        number=number,
        seed=seed,
        signatures=signatures,
        rate=_RATE,
        faults=tuple(Planned(fault, int(part * signatures)) for part, fault in schedule.faults),
    )
    result = await Run(world, plan, stuck_seconds=stuck_seconds).play()
    return result.violations
