"""Failpoints: off, they do nothing; on, they do what the file says, once, in one process; every name is listed."""

import ast
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from deploy.local import PROJECT_ROOT
from deploy.local.parts.service import SERVICES
from shared.runtime import failpoints
from shared.runtime.failpoints import POINTS, VARIABLE

POINT = "verify.committed"

COMPLETE = {
    "SIGNER_PEPPER": "0123456789abcdef",
    "ADMIN_TOKEN": "0123456789abcdef",
    "SMTP_URL": "smtp://127.0.0.1:25",
    "PUBLIC_PAGES_URL": "http://127.0.0.1:8002",
    "PUBLIC_INGEST_URL": "http://127.0.0.1:8001",
}
"""The settings without which services do not start."""

PROGRAM = """
    import asyncio, sys
    from shared.runtime import failpoints
    from shared.runtime.failpoints import failpoint

    async def main():
        for _ in range(2):
            await failpoint("verify.committed")
            print("passed", flush=True)

    failpoints.announce("verify")
    asyncio.run(main())
"""


def start(directory: Path | None, program: str = PROGRAM) -> subprocess.Popen[str]:
    """A process of verify that passes the point `POINT` twice."""
    told = {VARIABLE: str(directory)} if directory is not None else {}
    rest = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=rest | told,
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(directory: Path | None) -> tuple[int, str]:
    """How such a process ended, and what it printed."""
    process = start(directory)
    printed, _ = process.communicate(timeout=120)
    return process.returncode, printed


def hits(directory: Path) -> list[str]:
    """The files that a process has claimed."""
    return [file.name.rpartition(".")[0] for file in directory.glob("*.hit.*")]


def test_without_the_variable_an_armed_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / POINT).write_text("kill")
    assert run(None) == (0, "passed\npassed\n")
    assert hits(tmp_path) == []


def test_in_this_process_as_in_production_a_point_is_bound_to_doing_nothing() -> None:
    assert VARIABLE not in os.environ
    assert failpoints.failpoint is failpoints._off


def test_a_process_that_can_be_armed_says_so_at_its_start(tmp_path: Path) -> None:
    code, printed = run(tmp_path)
    assert code == 0
    assert "failpoints_on" in printed
    assert VARIABLE in printed


def test_a_process_with_a_directory_that_is_not_there_does_not_start(tmp_path: Path) -> None:
    code, printed = run(tmp_path / "missing")
    assert code != 0
    assert "for fault runs only: unset it" in printed
    assert "passed" not in printed


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_with_such_a_directory_ends_as_with_any_wrong_setting(tmp_path: Path, service: str) -> None:
    # The one place that reads it also tells the points the name of the service.
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env={**os.environ, **COMPLETE, VARIABLE: str(tmp_path / "missing")},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    assert "for fault runs only: unset it" in ended.stderr


@pytest.mark.parametrize("file", [POINT, f"{POINT}@verify"])
def test_kill_ends_the_process_at_the_point(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("kill\n")
    code, printed = run(tmp_path)
    assert code == -signal.SIGKILL
    assert "passed" not in printed
    assert hits(tmp_path) == [f"{file}.hit"]


def test_a_point_armed_for_another_service_is_passed(tmp_path: Path) -> None:
    (tmp_path / f"{POINT}@tally").write_text("kill")
    code, _ = run(tmp_path)
    assert (code, hits(tmp_path)) == (0, [])


def test_stop_holds_the_process_at_the_point_until_it_is_told_to_go_on(tmp_path: Path) -> None:
    (tmp_path / POINT).write_text("stop")
    process = start(tmp_path)
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert printed.count("passed") == 2


def test_raise_is_an_exception_that_nobody_handles(tmp_path: Path) -> None:
    (tmp_path / POINT).write_text("raise")
    code, printed = run(tmp_path)
    assert code == 1
    assert "FailpointRaised" in printed


def test_an_action_that_does_not_exist_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / POINT).write_text("kil")
    code, printed = run(tmp_path)
    assert code == 1
    assert "unknown action" in printed


async def test_fail_is_a_transient_failure_once(tmp_path: Path) -> None:
    point = failpoints._Armed(tmp_path)
    (tmp_path / POINT).write_text("fail")
    with pytest.raises(ConnectionError):
        await point(POINT)
    await point(POINT)


@pytest.mark.parametrize("action", ["sleep 0.2", "block 0.2"])
async def test_a_delay_lasts_as_long_as_it_says(tmp_path: Path, action: str) -> None:
    point = failpoints._Armed(tmp_path)
    (tmp_path / POINT).write_text(action)
    began = time.monotonic()
    await point(POINT)
    assert time.monotonic() - began >= 0.2


def test_of_several_processes_one_takes_the_action(tmp_path: Path) -> None:
    (tmp_path / POINT).write_text("kill")
    processes = [start(tmp_path) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
    assert sorted(process.returncode for process in processes) == [-signal.SIGKILL, 0, 0]


def points_in_code() -> list[str]:
    """The argument of every call of `failpoint` in the product."""
    names = []
    for folder in ("services", "shared"):
        for file in (PROJECT_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                    (argument,) = node.args
                    # A name that is put together at run time could not be searched for.
                    assert isinstance(argument, ast.Constant), f"{file}:{node.lineno}"
                    names.append(str(argument.value))
    return names


def test_every_point_is_in_the_list_and_in_the_code_exactly_once() -> None:
    assert sorted(points_in_code()) == sorted(POINTS)


def test_names_of_points_can_be_names_of_files() -> None:
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in POINTS)
