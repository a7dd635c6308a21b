"""A scenario in a process of its own."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bench.results.figures import Figure
from tests.bench.scale import Scale
from tests.bench.setup.arena import Arena


async def _run(name: str, scale: Scale, state_dir: Path) -> list[Figure]:
    async with Arena(state_dir / name) as arena:
        figures: list[Figure] = await importlib.import_module(f"tests.bench.scenarios.{name}").run(arena, scale)
    return figures


def _figures_of(name: str, scale: Scale, state_dir: Path) -> list[Figure]:
    """One scenario, on new parts.

    Raises:
        PartFailed: it could not be run.
    """
    return asyncio.run(_run(name, scale, state_dir))


def run_apart(name: str, scale: Scale, state_dir: Path) -> list[Figure]:
    """The figures of one scenario, run on new parts and in a process of its own.

    Leftovers of a scenario's clients do not affect the next one, and if one crashes, the others still run.

    Raises:
        PartFailed, BrokenProcessPool: it could not be run.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_figures_of, name, scale, state_dir).result()
