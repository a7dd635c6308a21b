"""The place of `groundswell up`: a folder that keeps its data from one run to the next, until `groundswell reset`.

lock            held by the running process, and released however it ends
kept.json       ports, secrets, and which parts have their data here
processes.json  the running processes, or those of the last run if it was killed
stack.json      all addresses, while it runs (`deploy.local.state`)
env             addresses and tokens as shell variables, for `. .groundswell/env`
data/, logs/    of the parts and services; logs.before/ of the previous run
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.local.leftovers import PROCESSES, Processes, end_leftovers
from deploy.local.parts.ports import free_port, is_free
from deploy.local.parts.process import PartFailed
from deploy.local.state import RunningProcess, StackState, write_private

PORTS: Final = {
    "ingest": 8001,
    "verify": 8002,
    "tally": 8003,
    "notify": 8004,
    "mailbox page": 8025,
    "mailbox": 2525,
    "kafka": 9092,
    "kafka controller": 9093,
    "kafka-files": 9094,
    "postgres": 5432,
    "valkey": 6379,
}
"""The usual ports: the programs' default ports."""

_KEPT: Final = "kept.json"
_OWN: Final = ("data", "logs", "logs.before", "env", "stack.json", PROCESSES, _KEPT)
"""What a reset removes. Demo, fault runs and benchmarks have their own folders beside these."""

HIGHEST_PORT: Final = 65_535

Broker = Literal["embedded", "apache", "external"]


class Kept(BaseModel):
    """What is kept from run to run.

    Attributes:
        broker: which Kafka broker has its data here; `external`: none.
        parts: the parts that have their data here.
        ports: by name, see `PORTS`.
        secrets: by name.
        postgres_dir: where PostgreSQL's data is, if its user cannot reach this folder.
    """

    model_config = ConfigDict(extra="forbid")

    broker: Broker
    parts: list[str]
    ports: dict[str, int] = {}
    secrets: dict[str, str] = {}
    postgres_dir: Path | None = None


class Place:
    """A folder that this process owns exclusively while it is open; `with Place(folder) as place`.

    Args:
        folder: the folder. Created if missing, and private.
        report: called with a line for people.
        usual_ports: whether to use the ports of `PORTS` if they are free, or any ports.
    """

    def __init__(
        self, folder: Path, *, report: Callable[[str], None] = lambda _: None, usual_ports: bool = True
    ) -> None:
        self.folder = folder
        self._report = report
        self._usual_ports = usual_ports
        self._lock: IO[str] | None = None
        self._kept: Kept | None = None
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._lock = claim(self.folder)
        # If root starts PostgreSQL, it runs as another user, who must be able to traverse the folder but not to list it.
        _make(self.folder, 0o711 if os.geteuid() == 0 else 0o700)
        _make(self.folder / "data", 0o711 if os.geteuid() == 0 else 0o700)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def prepare(self, *, broker: Broker, parts: Sequence[str]) -> None:
        """End what a killed run left running, and read what it kept, or begin anew.

        Args:
            broker: which broker will run.
            parts: the parts that will have their data here.

        Raises:
            PartFailed: the existing data belongs to other parts, or cannot be read.
        """
        for name in await end_leftovers(self.folder):
            self._report(f"{name} was left by a run that was killed; it has been ended")
        logs, before = self.folder / "logs", self.folder / "logs.before"
        if logs.exists():
            shutil.rmtree(before, ignore_errors=True)
            logs.rename(before)
        _make(logs, 0o700)
        kept = self._read()
        if kept is None:
            kept = Kept(broker=broker, parts=list(parts))
        elif (kept.broker, sorted(kept.parts)) != (broker, sorted(parts)):
            raise PartFailed(
                f"{self.folder} has the data of a stack with {_described(kept.broker, kept.parts)}, and this one is to"
                f" have {_described(broker, parts)}. Start it as before, or elsewhere with --state-dir, or remove what"
                " is there with `groundswell reset`."
            )
        self._kept = kept
        self._write()

    def port(self, name: str) -> int:
        """Return the port of a part or service: that of the last run, otherwise the usual one, otherwise the next free one.

        A port that another program uses now is replaced for this run only.
        """
        kept = self._opened()
        if name not in self._ports:
            wanted = kept.ports.get(name) or (PORTS[name] if self._usual_ports else free_port())
            self._ports[name] = port = next_free(wanted, without={*self._ports.values(), *_others(name, kept)})
            if port != wanted:
                self._report(f"port {wanted} is taken by another program: {name} is on {port}")
            kept.ports.setdefault(name, port)
            self._write()
        return self._ports[name]

    def secret(self, name: str) -> str:
        """Return the secret of this name, the same in every run."""
        kept = self._opened()
        if name not in kept.secrets:
            kept.secrets[name] = secrets.token_urlsafe(32)
            self._write()
        return kept.secrets[name]

    @property
    def postgres_dir(self) -> Path | None:
        """Where PostgreSQL's data is, if not in `data/`."""
        return self._opened().postgres_dir

    def note_postgres_dir(self, directory: Path) -> None:
        """Store where PostgreSQL's data is."""
        self._opened().postgres_dir = directory
        self._write()

    def note_processes(self, processes: Iterable[RunningProcess]) -> None:
        """Store what is running, so that the next run can end it if this one and its guard are killed."""
        write_private(self.folder / PROCESSES, Processes(processes=list(processes)).model_dump_json())

    def _opened(self) -> Kept:
        if self._kept is None:
            raise RuntimeError("prepare the place first")
        return self._kept

    def _read(self) -> Kept | None:
        try:
            return read_kept(self.folder)
        except ValidationError as error:
            raise PartFailed(
                f"{self.folder / _KEPT} cannot be read; put it right, or begin anew with `groundswell reset`:\n{error}"
            ) from None

    def _write(self) -> None:
        write_private(self.folder / _KEPT, self._opened().model_dump_json(indent=2) + "\n")


def claim(folder: Path) -> IO[str]:
    """Lock a folder for this process until the returned file is closed or this process ends.

    Raises:
        PartFailed: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise PartFailed(f"another stack runs in {folder.resolve()}; stop it first, {_how_to_stop(folder)}") from None
    return lock


def _how_to_stop(folder: Path) -> str:
    try:
        return f"with Ctrl-C where it runs or `kill {StackState.read(folder).pid}`"
    except FileNotFoundError:
        return "with Ctrl-C where it runs"


def read_kept(folder: Path) -> Kept | None:
    """Return what is kept in a folder, or None.

    Raises:
        pydantic.ValidationError: the file is damaged.
    """
    try:
        return Kept.model_validate_json((folder / _KEPT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def remove(folder: Path) -> None:
    """Remove what `up` keeps in a folder. The folder must be claimed, and nothing of it may run."""
    try:
        kept = read_kept(folder)
    except ValidationError:
        kept = None
    elsewhere = None if kept is None else kept.postgres_dir
    if elsewhere is not None and elsewhere.parent.name.startswith("groundswell-postgres-"):
        shutil.rmtree(elsewhere.parent, ignore_errors=True)
    # Ports and secrets last, so that an interrupted reset can be repeated.
    for name in _OWN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def is_empty(folder: Path) -> bool:
    """Return whether `up` keeps nothing in a folder."""
    return not any((folder / name).exists() for name in _OWN)


def next_free(wanted: int, *, without: set[int]) -> int:
    """Return `wanted` or the next port above it on which nothing listens, none of `without`.

    Raises:
        PartFailed: there is none.
    """
    for port in range(wanted, HIGHEST_PORT + 1):
        if port not in without and is_free(port):
            return port
    raise PartFailed(f"no port from {wanted} upwards is free")


def _others(name: str, kept: Kept) -> set[int]:
    """Return the ports that are assigned to other parts of the stack."""
    return {port for other, port in {**PORTS, **kept.ports}.items() if other != name}


def _described(broker: str, parts: Sequence[str]) -> str:
    own = ", ".join(sorted(parts)) or "no parts"
    return f"{own} of its own" + (f" and the {broker} broker" if broker != "external" else "")


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
