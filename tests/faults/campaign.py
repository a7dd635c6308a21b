"""A campaign: many runs in one world, which keeps the data of earlier runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.report import Report
from tests.faults.result import CampaignResult
from tests.faults.run import Run
from tests.faults.schedule import plan
from tests.faults.world import World


async def play(
    catalogue: Sequence[Fault],
    *,
    seed: int,
    runs: int,
    first: int = 1,
    signatures: int,
    rate: float,
    faults: int,
    state_dir: Path,
    report: Report,
) -> CampaignResult:
    """Play runs `first` to `first + runs - 1` of the campaign with this seed.

    After a failed run its logs and timeline are saved and the next run gets a new world, so that damage of one run does not
    count against the others.

    Raises:
        PartFailed: the parts or services could not be started at all.
    """
    result = CampaignResult(seed)
    number, last = first, first + runs - 1
    while number <= last:
        async with AsyncExitStack() as stack:
            world_dir = state_dir / "world"
            shutil.rmtree(world_dir, ignore_errors=True)
            report.stage("starting Kafka, PostgreSQL, Valkey and the services")
            world = await stack.enter_async_context(World(world_dir))
            while number <= last:
                planned = plan(catalogue, number=number, seed=seed, signatures=signatures, rate=rate, faults=faults)
                report.run_begins(planned)
                outcome = await Run(world, planned, progress=report.progress).play()
                result.runs.append(outcome)
                number += 1
                if not outcome.ok:
                    kept = _keep(world, state_dir / f"failed-run-{outcome.number:03}")
                    report.run_failed(planned, outcome, kept)
                    break
                report.run_passed(outcome)
    return result


def _keep(world: World, place: Path) -> Path:
    """Copy logs and timeline to a place that later worlds do not clean up."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copytree(world.logs, place / "logs")
    shutil.copy(world.timeline.file, place / "timeline.jsonl")
    return place
