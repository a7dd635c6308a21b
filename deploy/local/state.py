"""`.groundswell/stack.json`: the addresses of a running stack, for people, the command and tests."""

import json
import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.local import STATE_DIR

_FILE = "stack.json"
_SAME_START_SECONDS = 2.0
"""The start time of a process, as the system reports it, moves a little when the clock is set."""


class RunningProcess(BaseModel):
    """One process of the stack.

    Attributes:
        name: `kafka`, `valkey`, `postgres`, `mailbox`, or a service (`verify`, `verify-2`).
        pid: its process id.
        log: its log file.
        address: its address (URL, or `host:port` of Kafka).
        started: when it was started, seconds since 1970; with `pid` it identifies the process.
        ready: whether it has been ready since then.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    log: str
    address: str
    started: float
    ready: bool = True


class StackState(BaseModel):
    """A running stack.

    Attributes:
        broker: which Kafka broker; `external`: its address was in the environment.
        pid: the process that runs the stack; SIGTERM or Ctrl-C stops it.
        started: when that process was started, seconds since 1970.
        supervised: whether it restarts what dies (`groundswell up`).
        kafka_bootstrap_servers, redis_url, postgres_url, smtp_url: the parts, the stack's own or external.
        ingest_url, verify_url, tally_url, notify_url: each service's first instance.
        mailbox_url: the mailbox page; None if mail goes to an external SMTP server.
        admin_token: bearer token of `PUT /v1/petitions/{id}`.
        api_key: partner key of the batch call.
        external: the variables of the parts that are not the stack's own.
        environment: the variables of the services; with them, any `groundswell` command works on this stack.
        processes: everything that was started for the stack.
    """

    model_config = ConfigDict(frozen=True)

    broker: Literal["embedded", "apache", "external"]
    pid: int
    started: float
    supervised: bool
    kafka_bootstrap_servers: str
    redis_url: str
    postgres_url: str
    smtp_url: str
    ingest_url: str
    verify_url: str
    tally_url: str
    notify_url: str
    mailbox_url: str | None
    admin_token: str
    api_key: str
    external: list[str]
    environment: dict[str, str]
    processes: list[RunningProcess]

    @property
    def services(self) -> dict[str, str]:
        """Addresses of the services, by name."""
        return {
            "ingest": self.ingest_url,
            "verify": self.verify_url,
            "tally": self.tally_url,
            "notify": self.notify_url,
        }

    def write(self, state_dir: Path) -> Path:
        """Write the file atomically, readable for its owner only because it holds secrets. Returns its path."""
        file = state_dir / _FILE
        write_private(file, json.dumps(self.model_dump(mode="json"), indent=2) + "\n")
        return file

    @classmethod
    def read(cls, state_dir: Path = STATE_DIR) -> Self:
        """Return the state of the stack that runs in `state_dir`.

        Raises:
            FileNotFoundError: no stack runs there (a file whose stack was killed counts as none, and so does one that
                an older version wrote).
        """
        try:
            state = cls.model_validate_json((state_dir / _FILE).read_text(encoding="utf-8"))
        except ValidationError:
            raise FileNotFoundError(f"{state_dir / _FILE} is not of this version") from None
        if not is_running(state.pid, state.started):
            raise FileNotFoundError(f"{state_dir / _FILE} is of a stack that no longer runs (process {state.pid})")
        return state

    @staticmethod
    def remove(state_dir: Path) -> None:
        """Remove the file, because its addresses are no longer valid."""
        (state_dir / _FILE).unlink(missing_ok=True)


def write_private(file: Path, text: str) -> None:
    """Write a file atomically, readable for its owner only."""
    fresh = file.with_name(f"{file.name}.tmp")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
    fresh.replace(file)


def start_of(pid: int) -> float:
    """Return when a running process was started, seconds since 1970.

    Raises:
        psutil.NoSuchProcess: it is not running.
    """
    import psutil

    return psutil.Process(pid).create_time()


def is_running(pid: int, started: float) -> bool:
    """Return whether the process started then is still running, as opposed to a later one with the same id.

    False without the extra `local`: an operator's installation must not use addresses of a local stack.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _SAME_START_SECONDS and (process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
