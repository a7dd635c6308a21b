"""What a run of `groundswell up` that was killed may have left running, and its end."""

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
    """Wait for what a killed run left to end, and end what does not; return the names of those.

    Its guard usually does. A process is known by its id and the time it was started at: an id that belongs to another
    program by now is left alone.
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
