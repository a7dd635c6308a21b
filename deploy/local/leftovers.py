"""Ends processes that a killed run of `groundswell up` has left running."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil
from pydantic import BaseModel, ValidationError

from deploy.local.state import RunningProcess, is_running

PROCESSES: Final = "processes.json"

_LEFTOVERS_SECONDS: Final = 8.0
"""The guard of a killed run needs five."""


class Processes(BaseModel):
    """`processes.json`."""

    processes: list[RunningProcess]


async def end_leftovers(folder: Path) -> list[str]:
    """Wait for left-over processes to end, and end those that do not; return their names.

    The guard of the killed run usually ends them. A process is identified by its id and start time, so that a program that
    has got the same id since is not touched.
    """
    try:
        noted = Processes.model_validate_json((folder / PROCESSES).read_text(encoding="utf-8")).processes
    except (FileNotFoundError, ValidationError):
        return []
    deadline = time.monotonic() + _LEFTOVERS_SECONDS
    while (left := _left_of(noted)) and time.monotonic() < deadline:  # noqa: ASYNC110  they tell nobody here
        await asyncio.sleep(0.1)
    families = [_family(process) for process in left]
    for family in families:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
    await asyncio.to_thread(psutil.wait_procs, [member for family in families for member in family], 10)
    return [process.name for process in left]


def _left_of(noted: Sequence[RunningProcess]) -> list[RunningProcess]:
    return [process for process in noted if is_running(process.pid, process.started)]


def _family(process: RunningProcess) -> list[psutil.Process]:
    try:
        parent = psutil.Process(process.pid)
        return [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return []
