"""docs/petition-sites.md, "Your first petition": its two blocks run unchanged, `make up` included."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import PROJECT_ROOT
from deploy.local.state import StackState
from tests.support.waiting import eventually

PATIENCE_SECONDS = 240
"""A start takes ten seconds on two idle cores; a machine may be busy."""


def blocks() -> list[str]:
    """The code after each marker."""
    page = (PROJECT_ROOT / "docs" / "petition-sites.md").read_text(encoding="utf-8")
    marked = r"^<!-- first petition: run by the tests -->\n```sh\n(.*?)^```"
    return [str(code) for code in re.findall(marked, page, flags=re.MULTILINE | re.DOTALL)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that is as the project's own, but for `.groundswell`."""
    for name in ("Makefile", "pyproject.toml", "uv.lock", ".venv", ".tools"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    return tmp_path


@contextmanager
def running(block: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A block in a separate terminal, ended with Ctrl-C."""
    with (folder / "said").open("wb") as said:
        terminal = subprocess.Popen(
            ["bash", "-e", "-c", block], cwd=folder, stdout=said, stderr=said, start_new_session=True
        )
    try:
        yield terminal
    finally:
        os.killpg(terminal.pid, signal.SIGINT)
        terminal.wait(60)


def run(block: str, folder: Path) -> str:
    """Run a block in a shell that stops at the first failure; return what it printed."""
    shell = subprocess.run(["bash", "-e", "-c", block], cwd=folder, capture_output=True, text=True, check=False)
    assert shell.returncode == 0, shell.stdout + shell.stderr
    return shell.stdout


async def test_the_first_petition_of_the_readme_is_made_signed_counted_and_mailed(checkout: Path) -> None:
    up, steps = blocks()
    setting, *commands = [command for command in steps.split("\n\n") if command.strip()]
    assert len(commands) == 4
    looks = commands.pop()
    with running(up, checkout) as terminal:

        async def is_up() -> bool:
            assert terminal.poll() is None, (checkout / "said").read_text()
            return (checkout / ".groundswell" / "env").exists() and "Stop with Ctrl-C" in (
                checkout / "said"
            ).read_text()

        await eventually(is_up, "it is up", PATIENCE_SECONDS)
        printed = re.findall(r"^  (curl .*)$", (checkout / "said").read_text(), flags=re.MULTILINE)
        said = await asyncio.to_thread(run, "\n\n".join([setting, *commands]), checkout)
        assert '"petition_id":"night-bus"' in said
        assert '"status":"submitted"' in said
        assert "verify, process " in said
        assert "All is well again" in said

        async def is_counted_and_mailed() -> bool:
            seen = await asyncio.to_thread(run, f"{setting}\n{looks}", checkout)
            return '"count":1,' in seen and "mayor@quillmere.example" in seen

        await eventually(is_counted_and_mailed, "one signature counts, and the mayor has a mail", PATIENCE_SECONDS)
        # What `up` prints is the same, with the addresses written out. The signer is the same one, too.
        assert len(printed) == 2
        again = [await asyncio.to_thread(run, command, checkout) for command in printed]
        assert '"petition_id":"night-bus"' in again[0]
        assert '"status":"submitted"' in again[1]
        pids = [process.pid for process in StackState.read(checkout / ".groundswell").processes]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "is as new" in await asyncio.to_thread(run, ".venv/bin/groundswell reset --yes", checkout)
