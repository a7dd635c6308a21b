"""What `groundswell up` does when a part or service ends by itself."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.parts.process import Process
from deploy.local.stack import Stack
from deploy.local.supervise import Restarts, Supervisor
from tests.support.script import Script
from tests.support.waiting import eventually

RUNS = "ready(); time.sleep(300)"
FAILS = "print('no such table'); sys.exit(3)"


class ScriptedStack(Stack):
    """A stack of two scripts: `service` needs `part`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(state_dir=folder, environ={})
        self.part = Script(RUNS, folder=folder, name="part")
        self.service = Script(RUNS, folder=folder, name="service")
        self.ready: dict[str, bool] = {}

    def part_waits(self, go: Path) -> Path:
        """Let the next start of `part` be ready once the file `go` exists; returns the file."""
        self.part.script = f"while not os.path.exists({str(go)!r}): time.sleep(0.05)\n{RUNS}"
        return go

    @property
    def processes(self) -> list[Process]:
        return [self.part, self.service] if hasattr(self, "service") else []

    def needs(self, process: Process) -> list[Process]:
        return [self.part] if process is self.service else []

    def note_ready(self, process: Process, *, ready: bool) -> None:
        self.ready[process.name] = ready


@contextlib.asynccontextmanager
async def supervised(stack: ScriptedStack, said: list[str]) -> AsyncIterator[None]:
    for process in stack.processes:
        await process.start()
    task = asyncio.create_task(Supervisor(stack, said.append).run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for process in stack.processes:
            await process.stop()


def strike(process: Process) -> int:
    assert process.pid is not None
    pid = process.pid
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_what_was_killed_is_reported_with_its_signal_and_log_and_runs_again(tmp_path: Path) -> None:
    stack, said = ScriptedStack(tmp_path), list[str]()
    stack.service.script = "print('connected to everything', flush=True); " + RUNS
    async with supervised(stack, said):
        pid = strike(stack.service)
        await eventually(lambda: stack.ready.get("service", False), "the service is ready again")
        assert stack.service.pid not in (None, pid)
    assert "service was ended by SIGKILL." in said[0]
    assert "| connected to everything" in said[0]
    assert said[0].endswith("It is started again.")
    assert said[1].startswith("service is ready again")


async def test_what_ends_again_and_again_is_started_ever_more_seldom_and_that_is_said(tmp_path: Path) -> None:
    stack, said = ScriptedStack(tmp_path), list[str]()
    async with supervised(stack, said):
        stack.service.script = FAILS
        strike(stack.service)
        await eventually(lambda: len(said) >= 3, "three deaths are reported")
        assert stack.ready == {"service": False}
        stack.service.script = RUNS
        await eventually(lambda: stack.ready.get("service", False), "it runs once its cause is gone")
    assert "service ended with exit code 3" in said[1]
    assert "| no such table" in said[1]
    assert said[1].endswith("That was the 2nd time in a row; it is started again in 0.5 s.")
    assert said[2].endswith("That was the 3rd time in a row; it is started again in 1 s.")


async def test_a_service_is_started_after_the_part_that_it_needs(tmp_path: Path) -> None:
    stack, said = ScriptedStack(tmp_path), list[str]()
    async with supervised(stack, said):
        go = stack.part_waits(tmp_path / "go")
        strike(stack.part)
        await eventually(lambda: stack.ready.get("part") is False, "the part's death is seen")
        strike(stack.service)
        await eventually(lambda: stack.ready.get("service") is False, "the service's death is seen")
        await eventually(lambda: stack.part.running, "the part runs again")
        assert not stack.service.running
        go.touch()
        await eventually(lambda: stack.ready.get("service", False), "both are ready")
    assert next(line for line in said if "ready again" in line).startswith("part is ready again")


async def test_a_part_that_is_late_is_left_to_get_ready(tmp_path: Path) -> None:
    stack, said = ScriptedStack(tmp_path), list[str]()
    async with supervised(stack, said):
        stack.part.start_seconds = 0.2
        go = stack.part_waits(tmp_path / "go")
        strike(stack.part)
        await eventually(lambda: any("part was not ready within 0 s" in line for line in said), "it is said to be late")
        go.touch()
        await eventually(lambda: stack.ready.get("part", False), "the part is ready")
    assert any("part was not ready within 0 s" in line for line in said)


async def test_what_is_stopped_is_not_started_again(tmp_path: Path) -> None:
    stack, said = ScriptedStack(tmp_path), list[str]()
    async with supervised(stack, said):
        await stack.service.stop()
        await asyncio.sleep(0.5)  # longer than it takes to be seen
        assert not stack.service.running
    assert said == []


def test_pauses_double_up_to_half_a_minute() -> None:
    restarts = Restarts()
    restarts.started(100.0)
    assert [restarts.died(100.0 + second) for second in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("ran", "pause"), [(59.0, 0.5), (60.0, 0.0)])
def test_who_has_run_for_a_minute_has_not_died_again_but_anew(ran: float, pause: float) -> None:
    restarts = Restarts()
    restarts.started(0.0)
    restarts.died(10.0)
    restarts.started(10.0)
    assert restarts.died(10.0 + ran) == pause
