"""The harness's side of failpoints."""

import asyncio
import os
import sys
import textwrap
from pathlib import Path

import pytest

from deploy.local import PROJECT_ROOT
from tests.faults.breaking.failpoints import Failpoints

POINT = "tally.applied"

PROGRAM = """
    import asyncio
    from shared.runtime import failpoints
    from shared.runtime.failpoints import failpoint

    async def main():
        while True:
            await failpoint("tally.applied")
            await asyncio.sleep(0.01)

    failpoints.announce("tally")
    asyncio.run(main())
"""


async def start(points: Failpoints) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(PROGRAM),
        env={**os.environ, **points.environment},
        cwd=PROJECT_ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_an_armed_point_tells_which_process_came_to_it(tmp_path: Path) -> None:
    points = Failpoints(tmp_path / "points")
    process = await start(points)
    try:
        for service in (None, "tally"):
            points.arm(POINT, "sleep 0.1", service=service)
            assert await points.hit(POINT, service=service, within=20) == process.pid
            assert points.disarm(POINT, service=service) is False
        points.arm(POINT, "kill")
        assert await points.hit(POINT, within=20) == process.pid
        assert await process.wait() == -9
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_point_that_nobody_comes_to_is_given_up_and_taken_back(tmp_path: Path) -> None:
    points = Failpoints(tmp_path / "points")
    points.arm(POINT, "kill", service="tally")
    assert await points.hit(POINT, service="tally", within=0.1) is None
    assert points.disarm(POINT, service="tally") is True
    points.arm(POINT, "stop")
    points.disarm_all()
    assert list(points.directory.iterdir()) == []


def test_a_point_that_does_not_exist_cannot_be_armed(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no failpoint"):
        Failpoints(tmp_path).arm("tally.aplied", "kill")
