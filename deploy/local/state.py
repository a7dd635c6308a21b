"""`.groundswell/stack.json`: where a running stack is found, for people, the command and tests."""

import json
from pathlib import Path
from typing import Literal, Self

import psutil
from pydantic import BaseModel, ConfigDict

from deploy.local import STATE_DIR

_FILE = "stack.json"


class RunningProcess(BaseModel):
    """One process of the stack.

    Attributes:
        name: `kafka`, `valkey`, `postgres`, `mailbox`, or a service (`verify`, `verify-2`).
        pid: its process id.
        log: its log file.
        address: where it answers (URL, or `host:port` of Kafka).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    log: str
    address: str


class StackState(BaseModel):
    """A stack that is up.

    Attributes:
        broker: which Kafka broker: `external` is one whose address was in the environment.
        pid: the process that runs the stack; SIGTERM or Ctrl-C there stops it.
        kafka_bootstrap_servers, redis_url, postgres_url, smtp_url: the parts, the stack's own or external.
        ingest_url, verify_url, tally_url, notify_url: each service's first instance.
        mailbox_url: the mailbox page; None when mail goes to an external SMTP server.
        admin_token: bearer token of `PUT /v1/petitions/{id}`.
        api_key: partner key of the batch call.
        environment: what the services were told: give it to any `groundswell` command to make it work on this stack.
        processes: everything that was started for the stack.
    """

    model_config = ConfigDict(frozen=True)

    broker: Literal["embedded", "apache", "external"]
    pid: int
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
    environment: dict[str, str]
    processes: list[RunningProcess]

    def write(self, state_dir: Path) -> Path:
        """Write the file, whole or not at all, readable for its owner only: it holds secrets. Return its path."""
        file = state_dir / _FILE
        fresh = file.with_suffix(".tmp")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
        fresh.rename(file)
        return file

    @classmethod
    def read(cls, state_dir: Path = STATE_DIR) -> Self:
        """Return the state of the stack that runs in `state_dir`.

        Raises:
            FileNotFoundError: no stack runs there (a file whose stack was killed counts as none).
        """
        state = cls.model_validate_json((state_dir / _FILE).read_text(encoding="utf-8"))
        if not psutil.pid_exists(state.pid):
            raise FileNotFoundError(f"{state_dir / _FILE} is of a stack that no longer runs (process {state.pid})")
        return state

    @staticmethod
    def remove(state_dir: Path) -> None:
        """Remove the file: its addresses are no longer answered."""
        (state_dir / _FILE).unlink(missing_ok=True)
