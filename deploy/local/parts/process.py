"""One process of the stack: start, log, end, and the controls that fault tests need."""

import abc
import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from deploy.local import PROJECT_ROOT
from deploy.local.parts.children import Credentials, Guard

_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 64 * 1024


class PartFailed(RuntimeError):
    """A part could not be started, or ended by itself. The message ends with the tail of its log."""


class Process(abc.ABC):
    """A child process that is started, watched and ended.

    Subclasses define what to run (`_command`), how to prepare it (`_prepare`) and when it is ready (`_is_ready`).
    `start`, `stop`, `kill` and `restart` may be called in any order and from any event loop; data directory and port
    stay the same over a restart. When this Python process ends in any way, the guard ends the child too.

    Attributes:
        name: the part's name in reports and in the name of its log file.
        log_file: the file of its standard output and error, over all restarts.
    """

    stop_signal: signal.Signals = signal.SIGTERM
    """The signal that asks for a graceful end."""

    start_seconds: float = 180.0
    """How long a start may take before it counts as failed. It is generous because a laptop may be busy, and a process that
    ends is noticed at once."""

    def __init__(self, *, name: str, log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._child: subprocess.Popen[bytes] | None = None
        self._cpu_seconds: dict[int, float] = {}  # by pid, as last seen
        self._is_wanted = False
        self._why_not_ready = ""  # the part's last answer
        self.on_launch: Callable[[], None] = lambda: None
        """Called each time the process has been started."""

    # For subclasses -------------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Its address; the same over restarts."""

    @property
    @abc.abstractmethod
    def environment(self) -> dict[str, str]:
        """The environment variables that point Groundswell's services at this part."""

    @abc.abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Return program and arguments."""

    @abc.abstractmethod
    async def _is_ready(self) -> bool:
        """Return whether the part is ready, with a single request. No answer is `False`, not an error."""

    async def _prepare(self) -> None:  # noqa: B027  most parts prepare nothing
        """Make directories and files before the process starts. Called before every start."""

    def _working_directory(self) -> Path:
        """Return where the process runs: `python -m services.…` finds its modules from the project's root."""
        return PROJECT_ROOT

    def _environ(self) -> Mapping[str, str]:
        """Return the child's whole environment."""
        return os.environ

    def _credentials(self) -> Credentials:
        """Return the user to run as; empty for the user that runs this."""
        return {}

    # Public ---------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the process exists (it may be paused)."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._child.pid if self._child is not None and self.running else None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it has ended without being stopped or killed by this object."""
        return self._is_wanted and not self.running

    @property
    def exit_code(self) -> int | None:
        """The last exit code (negative: the signal that ended it); None while it runs or if it was never started."""
        return None if self._child is None else self._child.poll()

    async def start(self) -> Self:
        """Start the process and wait until it is ready.

        Raises:
            PartFailed: it ended before it was ready, or was not ready within `start_seconds`. Nothing is left running.
        """
        await self.launch()
        try:
            await self.wait_ready()
        except BaseException:
            await self.kill()
            raise
        return self

    async def launch(self) -> None:
        """Start the process without waiting for it: to start several at once, or to watch one come up."""
        if self.running:
            raise RuntimeError(f"{self.name} already runs as process {self.pid}")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        await self._prepare()
        Guard.begin()
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: ASYNC220, S603  fork and exec take a millisecond; our own arguments
                [str(word) for word in self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._environ()),
                cwd=self._working_directory(),
                # A session of its own: a Ctrl-C in the terminal reaches the parent only, which then stops its
                # children in the right order.
                start_new_session=True,
                **self._credentials(),
            )
        self._is_wanted = True
        try:
            Guard.watch(self._child.pid)
        except OSError:  # the guard was killed: without it nothing would end the part, so it is not started
            await self.kill()
            raise
        self.on_launch()

    async def wait_ready(self) -> None:
        """Wait until the process is ready.

        Raises:
            PartFailed: it has ended, or is not ready within `start_seconds`.
        """
        deadline = time.monotonic() + self.start_seconds
        while True:
            if not self.running:
                raise PartFailed(self.describe_end())
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 it can lose the cancellation that a Ctrl-C causes.
                async with asyncio.timeout(5.0):
                    if await self._is_ready():
                        return
            if time.monotonic() > deadline:
                says = f" It says: {self._why_not_ready}" if self._why_not_ready else ""
                late = f"{self.name} was not ready within {self.start_seconds:.0f} s.{says}"
                raise PartFailed(f"{late}\n{self._log_quoted()}")
            await asyncio.sleep(_POLL_SECONDS * 2)

    async def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the process to end; return its exit code, or None if it still runs after `timeout_seconds`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.running:
            if deadline is not None and time.monotonic() > deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
        self._note_end()
        return self.exit_code

    async def stop(self, timeout_seconds: float = 20.0) -> int | None:
        """Ask the process to end, wait, and kill it if it has not ended in time. Return its exit code."""
        self._is_wanted = False
        if self.running:
            self.cpu_seconds()  # the last chance to ask
            self.send_signal(self.stop_signal)
            self.resume()  # a paused process reacts only to SIGKILL
            if await self.wait(timeout_seconds) is None:
                await self.kill()
        self._note_end()
        return self.exit_code

    async def kill(self) -> None:
        """End the process and its children at once (SIGKILL), as a crash would, and wait until they are gone."""
        self._is_wanted = False
        family = self._family()
        self.cpu_seconds()  # the last chance to ask
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        await self.wait()
        # init reaps the children a moment later, without notice to this process.
        while any(_is_alive(member) for member in family):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)

    async def restart(self) -> None:
        """Stop gracefully and start again on the same data and port."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze the process and its children (SIGSTOP): connections stay open, nothing answers."""
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()

    def resume(self) -> None:
        """Resume a paused process."""
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself (not to its children)."""
        if self._child is not None:
            self._child.send_signal(number)

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the log."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - _LOG_TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def cpu_seconds(self) -> float:
        """Return the CPU time, user and system, that the process has used so far, over all its restarts.

        For a process that ended by itself or was killed by others, the time up to the last call of this method counts.
        """
        for member in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                self._cpu_seconds[member.pid] = times.user + times.system
        return sum(self._cpu_seconds.values())

    def describe_end(self, lines: int = 30) -> str:
        """Return a report of how the process ended, with the last lines of its log."""
        code = self.exit_code
        how = "was never started" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        return f"{self.name} {how}.\n{self._log_quoted(lines)}"

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _log_quoted(self, lines: int = 30) -> str:
        tail = "\n".join(f"  | {line}" for line in self.log_tail(lines).splitlines())
        return f"The end of its log ({self.log_file}):\n{tail or '  | (empty)'}"

    def _family(self) -> list[psutil.Process]:
        """The process and its descendants, the process first."""
        if self._child is None or not self.running:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._child.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def _note_end(self) -> None:
        if self._child is not None and not self.running:
            Guard.forget(self._child.pid)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
