"""Child processes that end with this Python process, however it ends (its guard ensures that); helper programs that run to
completion; and credentials of other users."""

import asyncio
import contextlib
import functools
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypedDict

from deploy.local import PROJECT_ROOT
from deploy.local.parts import guard


class Guard:
    """This Python process's one guard (see `deploy.local.parts.guard`), started with the first child."""

    _watched: ClassVar[set[int]] = set()

    @staticmethod
    @functools.cache
    def _process() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  our own script
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @classmethod
    def begin(cls) -> None:
        """Start the guard, before the child, so that no child is without one."""
        if cls._process().poll() is not None:  # somebody killed it; it ends nothing then
            cls._process.cache_clear()
            for pid in cls._watched:
                cls._tell(b"+%d\n" % pid)

    @classmethod
    def watch(cls, pid: int) -> None:
        cls._watched.add(pid)
        cls._tell(b"+%d\n" % pid)

    @classmethod
    def forget(cls, pid: int) -> None:
        cls._watched.discard(pid)
        with contextlib.suppress(OSError):  # a guard that was killed; the next start makes another
            cls._tell(b"-%d\n" % pid)

    @classmethod
    def _tell(cls, line: bytes) -> None:
        pipe = cls._process().stdin
        assert pipe is not None
        pipe.write(line)
        pipe.flush()


class Credentials(TypedDict, total=False):
    """Keyword arguments of `subprocess.Popen` that make the child another user, in all its groups."""

    user: int
    group: int
    extra_groups: list[int]


def credentials_of(account: pwd.struct_passwd) -> Credentials:
    """Return the arguments with which a child of root runs as `account`, without root's groups."""
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


async def run_to_end(
    command: Sequence[str | Path], *, cwd: Path = PROJECT_ROOT, credentials: Credentials | None = None
) -> tuple[int, str]:
    """Run a helper program (initdb, mvn, …) and return its exit code and output.

    It is killed if the caller is cancelled, and ends with this Python process, like the parts.
    """
    Guard.begin()
    program = await asyncio.create_subprocess_exec(
        *(str(word) for word in command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        start_new_session=True,
        **(credentials or {}),
    )
    Guard.watch(program.pid)
    try:
        output, _ = await program.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        await program.wait()
        raise
    finally:
        Guard.forget(program.pid)
    assert program.returncode is not None
    return program.returncode, output.decode(errors="replace")
