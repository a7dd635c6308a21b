"""`groundswell kill`: kills or freezes one process of the running `groundswell up`, and waits for the recovery."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx
import psutil
import typer

from deploy.local.state import RunningProcess, StackState, is_running
from deploy.local.victims import VICTIMS, Victim, victim_of, what_to_watch

PATIENCE_SECONDS: Final = 300.0
"""Longer than the wait of `up` between two starts plus a start on a busy machine."""

_POLL_SECONDS: Final = 0.2
_ANSWER_SECONDS: Final = 3.0


class KillRefused(Exception):
    """Nothing was killed; the message says why and what to do."""


class NotRecovered(Exception):
    """The system has not recovered in time; the message says what is still wrong."""


@dataclass(slots=True)
class Outlook:
    """The readiness of the four services while one process is away.

    Attributes:
        seen: every change, with the seconds since the kill.
    """

    quiet: bool
    began: float = field(default_factory=time.monotonic)
    seen: list[str] = field(default_factory=list)
    _last: dict[str, str] = field(default_factory=dict)

    def look(self, state: StackState, http: httpx.Client) -> bool:
        """Read the readiness of all services and report changes; return whether all are `ready`, none `degraded`."""
        now = {service: _readiness(http, url) for service, url in state.services.items()}
        for service, status in now.items():
            if status != self._last.get(service, "ready"):
                self.tell(f"{service}: {status}")
        self._last = now
        return all(status == "ready" for status in now.values())

    def tell(self, line: str) -> None:
        """Report an event."""
        self.seen.append(f"{time.monotonic() - self.began:.1f} s: {line}")
        if not self.quiet:
            typer.echo(f"  {self.seen[-1]}")

    @property
    def seconds(self) -> float:
        """Seconds since the kill."""
        return time.monotonic() - self.began


def kill(name: str, *, freeze: float | None, state_dir: Path, as_json: bool) -> int:
    """Kill or freeze one process of `groundswell up`, as `deploy.cli` describes it.

    Returns:
        The exit code: 0 if the system has recovered, 1 if it has not in time or nothing was killed.
    """
    try:
        report = _kill(name, freeze=freeze, state_dir=state_dir, as_json=as_json)
    except (KillRefused, NotRecovered) as failure:
        if as_json:
            typer.echo(json.dumps({"ok": False, "name": name, "error": str(failure)}))
        else:
            typer.echo(str(failure), err=True)
        return 1
    if as_json:
        typer.echo(json.dumps({"ok": True, **report}))
    return 0


def _kill(name: str, *, freeze: float | None, state_dir: Path, as_json: bool) -> dict[str, Any]:
    state = _running_stack(state_dir)
    victim = victim_of(name)
    if victim is None:
        raise KillRefused(f"there is no {name!r} to kill: name one of {', '.join(each.name for each in VICTIMS)}")
    process = _process_of(victim, state)
    watch = what_to_watch(victim, state)
    how = "SIGKILL" if freeze is None else f"SIGSTOP for {freeze:g} s"
    if not as_json:
        typer.echo(f"{victim.name}, process {process.pid}: {how}. Watch:")
        for what, where in watch.items():
            typer.echo(f"  {what:<13} {where}")
    outlook = Outlook(quiet=as_json)
    with httpx.Client(timeout=_ANSWER_SECONDS, verify=False, trust_env=False) as http:  # noqa: S501  plain, on loopback
        if freeze is None:
            _strike(process)
        else:
            with _frozen(process):
                while outlook.seconds < freeze:
                    outlook.look(state, http)
                    time.sleep(min(_POLL_SECONDS, max(0.0, freeze - outlook.seconds)))
            outlook.tell(f"{victim.name} goes on")
        successor = _wait(process, state_dir, outlook, http, is_same=freeze is not None)
    if not as_json:
        typer.echo(f"All is well again after {outlook.seconds:.1f} s: {victim.name} is process {successor.pid}.")
    return {
        "name": victim.name,
        "how": how,
        "pid": process.pid,
        "new_pid": successor.pid,
        "recovered_seconds": round(outlook.seconds, 1),
        "seen": outlook.seen,
        "watch": watch,
    }


def _running_stack(state_dir: Path) -> StackState:
    try:
        state = StackState.read(state_dir)
    except FileNotFoundError:
        raise KillRefused(f"nothing runs in {state_dir}: start it with `make up` (`groundswell up`)") from None
    if not state.supervised:
        raise KillRefused(
            f"what runs in {state_dir} is not `groundswell up`: nobody there would start again what is killed"
        )
    return state


def _process_of(victim: Victim, state: StackState) -> RunningProcess:
    """Return the process to kill, started by `up` and still the same.

    Raises:
        KillRefused: there is none.
    """
    if victim.variable in state.external:
        raise KillRefused(
            f"{victim.name} is not a process of this `groundswell up`: {victim.variable} was in its environment."
            " Kill it where it runs."
        )
    process = next((process for process in state.processes if process.name == victim.process), None)
    if process is None and victim.name == "kafka-files":
        raise KillRefused("kafka-files belongs to the embedded broker; Apache Kafka writes its files itself")
    if process is None or not is_running(process.pid, process.started):
        raise KillRefused(f"{victim.name} does not run just now; `groundswell up` is about to start it again")
    return process


def _family(process: RunningProcess) -> list[psutil.Process]:
    """Return the process and its children, the process first."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _strike(process: RunningProcess) -> None:
    for member in _family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


@contextlib.contextmanager
def _frozen(process: RunningProcess) -> Iterator[None]:
    """Freeze a process and its children. They resume however this command ends, except by SIGKILL."""
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    family = _family(process)
    try:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()
        yield
    finally:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.resume()
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _wait(
    process: RunningProcess, state_dir: Path, outlook: Outlook, http: httpx.Client, *, is_same: bool
) -> RunningProcess:
    """Wait until the process, or its replacement, is ready and every service reports that nothing is away.

    Raises:
        NotRecovered: that takes too long, or `up` has ended.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            state = StackState.read(state_dir)
        except FileNotFoundError:
            raise NotRecovered("`groundswell up` has been stopped meanwhile") from None
        now = next((other for other in state.processes if other.name == process.name), None)
        is_well = outlook.look(state, http)
        if is_well and now is not None and now.ready and (is_same or now.pid != process.pid):
            return now
        time.sleep(_POLL_SECONDS)
    raise NotRecovered(
        f"not all is well {PATIENCE_SECONDS:.0f} s after; what was seen last:\n" + "\n".join(outlook.seen[-5:])
    )


def _readiness(http: httpx.Client, url: str) -> str:
    """Return a service's readiness: `ready`, or what is wrong."""
    try:
        said = http.get(f"{url}/readyz").json()
        away = [f"{check}: {result}" for check, result in said["checks"].items() if result != "ok"]
        return ", ".join([str(said["status"]), *away])
    except (httpx.TransportError, ValueError, KeyError) as error:
        return f"no answer ({type(error).__name__})"
