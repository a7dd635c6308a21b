"""Failpoints: named points in the code where a fault run kills, stops, delays or fails a process.

The moment between a database's commit and Kafka's acknowledgement lasts microseconds and is rarely hit from outside. With a
failpoint there, a fault run hits it every time. `docs/adr/0009-failpoints.md` says why they are in production code.

Contract
--------
**Off** unless the environment variable ``GROUNDSWELL_FAILPOINTS`` names a directory. That is decided once, when this
module is imported; off, each point costs an empty coroutine. The variable is for fault runs only: a process that starts
with it logs a warning, and does not start if the directory does not exist.

**On**, a point looks for a file of its name in that directory; ``<name>@<service>`` is only for processes of that
service. The file holds an action. Exactly one process claims it, by renaming it to ``<file>.hit.<pid>``, and performs it:

=============  ==========================================================================================
``kill``       SIGKILL to itself: a crash
``stop``       SIGSTOP to itself: a zombie, until it receives SIGCONT
``sleep 2.5``  wait this many seconds at this point; the rest of the process runs on
``block 2.5``  the same, but the whole process is blocked, as in a long garbage collection
``fail``       raise a `ConnectionError`: a transient failure
``raise``      raise `FailpointRaised`: a bug
=============  ==========================================================================================
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

VARIABLE: Final = "GROUNDSWELL_FAILPOINTS"

POINTS: Final[dict[str, str]] = {
    "ingest.before_publish": "A command is admitted; the producer has not been given it.",
    "ingest.acknowledged": "Kafka has the command; the client has no answer yet.",
    "ingest.change_asked": "PostgreSQL has the record of a petition's change; Kafka has not been given the change.",
    "ingest.change_stored": "Kafka has a petition's change; PostgreSQL does not know.",
    "consumer.decoded": "A batch is decoded; nothing has been done about it.",
    "consumer.dead_letters_published": "The unreadable records of a batch are dead letters; the others still wait.",
    "consumer.set_aside": "A record that cannot be applied is a dead letter; the rest of its batch still waits.",
    "consumer.processed": "A batch's effects are durable and published; its offsets are not committed.",
    "consumer.committed": "A batch's offsets are committed.",
    "consumer.revoking": "The group asks for the partitions; the batch in hand has not been waited for.",
    "consumer.assigned": "Partitions were taken over; nothing of them has been read.",
    "producer.batch_acknowledged": "One batch of records in order is acknowledged; others of the same call may not be.",
    "verify.before_commit": "PostgreSQL has all of a batch's rows, uncommitted.",
    "verify.committed": "PostgreSQL has committed a batch; no fact of it is published.",
    "verify.facts_published": "The facts of a batch are acknowledged; its rejections are not published.",
    "tally.before_apply": "A batch's steps are computed; Redis has not been told.",
    "tally.applied": "Redis has counted a batch; the milestones that it reached are not recorded.",
    "tally.milestone_recorded": "PostgreSQL has a milestone; it is not published.",
    "tally.milestone_published": "Kafka has a milestone; neither PostgreSQL nor Redis knows it.",
    "tally.milestone_marked": "PostgreSQL has a milestone as announced; Redis does not.",
    "tally.shadow_written": "A rebuilt tally lies beside the stored one, in Redis.",
    "tally.swapped": "A rebuilt tally is in place; other petitions of the rebuild may not be.",
    "tally.epoch_raised": "PostgreSQL has a new epoch of a petition; its tally and its snapshots are of the old one.",
    "tally.rebuilt": "All tallies are rebuilt; PostgreSQL still remembers the Redis before this one.",
    "tally.snapshots_read": "Snapshots are read from Redis; they are not published.",
    "tally.snapshots_published": "Snapshots are acknowledged; this process has not noted which.",
    "notify.stored": "The deliveries of a batch of milestones are in PostgreSQL; its offsets are not committed.",
    "notify.before_claim": "Mails are chosen and leased, uncommitted.",
    "notify.claimed": "Mails are leased; the SMTP server has not been given any.",
    "notify.before_requeue": "Failed deliveries of a corrected target are due again, uncommitted.",
    "notify.requeued": "Failed deliveries of a corrected target are due again; nobody has counted that.",
    "notify.accepted": "The SMTP server has taken a mail; PostgreSQL does not know.",
}
"""Every point, by name: the part of the system, then what has just happened there."""


class FailpointRaised(Exception):
    """Raised by the action ``raise``. No handler expects it, so it is treated as a bug."""


class FailpointsMisconfigured(Exception):
    """The environment variable is set, but its directory cannot be used."""


async def _off(name: str, /) -> None:
    """`failpoint` in production."""


class _Armed:
    """`failpoint` in a fault run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.service = ""

    async def __call__(self, name: str, /) -> None:
        for file in (name, f"{name}@{self.service}"):
            if (action := self._claim(file)) is not None:
                log.warning("failpoint_hit", failpoint=file, action=action)
                await _act(name, action)

    def _claim(self, file: str) -> str | None:
        claimed = self.directory / f"{file}.hit.{os.getpid()}"
        try:
            (self.directory / file).rename(claimed)  # atomic: only one process succeeds
        except FileNotFoundError:
            return None
        return claimed.read_text(encoding="utf-8").strip()


async def _act(name: str, action: str) -> None:
    match action.split():
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["stop"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["sleep", seconds]:
            await asyncio.sleep(float(seconds))
        case ["block", seconds]:
            time.sleep(float(seconds))  # noqa: ASYNC251  blocking is the fault
        case ["fail"]:
            raise ConnectionError(f"failpoint {name}")
        case ["raise"]:
            raise FailpointRaised(name)
        case _:
            raise FailpointRaised(f"{name} is armed with an unknown action: {action}")


_named = os.environ.get(VARIABLE)
_armed = _Armed(Path(_named)) if _named else None

failpoint: Final[Callable[[str], Awaitable[None]]] = _armed or _off
"""``await failpoint("verify.committed")`` does nothing unless a fault run has armed that point (see above)."""


def announce(service: str) -> None:
    """Log at the start of a process of `service` that failpoints are on. Does nothing if they are off.

    Raises:
        FailpointsMisconfigured: the directory does not exist; the variable was probably set by mistake.
    """
    if _armed is None:
        return
    if not _armed.directory.is_dir():
        raise FailpointsMisconfigured(
            f"{VARIABLE} names {_armed.directory}, which is no directory. This variable is for fault runs only: unset it."
        )
    _armed.service = service
    log.warning(
        "failpoints_on",
        directory=str(_armed.directory),
        meaning=f"for fault runs only: whoever writes to this directory can kill this process; unset {VARIABLE}",
    )
