"""One child process: its end, its log, its report."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local.parts.children import run_to_end
from deploy.local.parts.process import PartFailed
from tests.support.script import Script
from tests.support.waiting import eventually

SLEEP = "ready(); time.sleep(60)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"


async def test_a_part_that_ends_before_it_is_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(PartFailed) as failed:
        await Script("print('no such thing'); sys.exit(3)", folder=tmp_path).start()
    assert "script ended with exit code 3" in str(failed.value)
    assert "| no such thing" in str(failed.value)


async def test_a_part_that_is_never_ready_is_ended_and_reported(tmp_path: Path) -> None:
    script = Script("time.sleep(60)", folder=tmp_path)
    script.start_seconds = 0.2
    with pytest.raises(PartFailed, match=r"not ready within 0 s"):
        await script.start()
    assert not script.running


async def test_a_part_whose_start_is_cancelled_is_ended(tmp_path: Path) -> None:
    script = Script("time.sleep(60)", folder=tmp_path)
    start = asyncio.create_task(script.start())
    await eventually(lambda: script.pid is not None, "it is started", every=0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not script.running


async def test_only_an_end_that_nobody_asked_for_counts_as_its_own(tmp_path: Path) -> None:
    script = await Script(SLEEP, folder=tmp_path).start()
    assert not script.ended_by_itself
    await script.stop()
    assert not script.ended_by_itself
    await script.start()
    await script.kill()
    assert not script.ended_by_itself
    await script.start()
    assert script.pid is not None
    psutil.Process(script.pid).kill()
    await script.wait()
    assert script.ended_by_itself
    assert "script was ended by SIGKILL" in script.describe_end()


async def test_a_part_that_does_not_heed_sigterm_is_killed(tmp_path: Path) -> None:
    script = await Script(DEAF, folder=tmp_path).start()
    assert await script.stop(timeout_seconds=0.3) == -9
    assert not script.running


async def test_a_paused_part_can_be_stopped(tmp_path: Path) -> None:
    script = await Script(SLEEP, folder=tmp_path).start()
    script.pause()
    assert await script.stop(timeout_seconds=60) == -15


async def test_a_part_cannot_be_started_twice(tmp_path: Path) -> None:
    async with Script(SLEEP, folder=tmp_path) as script:
        with pytest.raises(RuntimeError, match="already runs"):
            await script.start()


async def test_cpu_seconds_add_up_over_restarts(tmp_path: Path) -> None:
    burn = "while time.process_time() < 0.2: pass\nready(); time.sleep(60)"
    async with Script(burn, folder=tmp_path) as script:
        assert (first := script.cpu_seconds()) >= 0.15  # the system counts in ticks of 10 ms
        await script.restart()
        assert (both := script.cpu_seconds()) >= first + 0.15
    assert script.cpu_seconds() >= both


async def test_a_helper_program_returns_its_exit_code_and_all_it_said() -> None:
    script = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(4)"
    assert await run_to_end([sys.executable, "-c", script]) == (4, "out\nerr\n")


async def test_a_helper_program_is_killed_when_nobody_waits_any_more(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    waiting = asyncio.create_task(run_to_end([sys.executable, "-c", script]))
    await eventually(lambda: pid_file.exists() and pid_file.read_text() != "", "it has said its pid", every=0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not psutil.pid_exists(int(pid_file.read_text()))
