"""Peers and floors that answer HTTP, and requests whose answers are examined one by one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.demo.sending.client import Connection, ConnectionLost
from deploy.local.parts.ports import LOOPBACK, free_port
from tests.bench.setup.arena import Arena, Command

_JSON: Final = {"content-type": "application/json"}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Web:
    """A process with HTTP.

    Attributes:
        process: for measuring.
        url: scheme, host and port.
    """

    process: Command
    url: str


async def serve(arena: Arena, name: str, module: str, environ: Mapping[str, str] | None = None) -> Web:
    """Start one of `tests.bench.peers` or `tests.bench.floors`, with HOST, PORT and `environ` in its environment. It answers
    ``/livez``.

    Raises:
        PartFailed: it did not become ready.
    """
    url = f"http://{LOOPBACK}:{(port := free_port())}"
    process = await arena.process(
        name, [sys.executable, "-m", module], {"HOST": LOOPBACK, "PORT": str(port), **(environ or {})}, f"{url}/livez"
    )
    return Web(process, url)


def submission() -> bytes:
    """The body of a signature of a new signer."""
    email = f"probe.{os.getpid():x}.{next(_numbers)}@lakepost.example"
    return json.dumps({"email": email, "name": "Pia Probe", "country": "NL", "consent": True}).encode()


@dataclass(slots=True)
class Answered:
    """Results of requests, one by one.

    Attributes:
        accepted_ms: how long accepted ones waited for their answer.
        refused_ms: how long refused ones did.
        statuses: number of answers of each status.
        without_retry_after: refusals (429, 503) without `Retry-After`.
        lost: requests without an answer.
    """

    accepted_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    without_retry_after: int = 0
    lost: int = 0


async def sample(url: str, path: str, into: Answered, *, rate: float, workers: int = 16) -> None:
    """Post signatures at a low steady rate until cancelled, each in its own task, and record every answer.

    At most `workers` wait at once; a request without a free worker is skipped: the load comes from elsewhere.
    """
    free = [Connection(url) for _ in range(workers)]
    under_way: set[asyncio.Task[None]] = set()

    async def one(connection: Connection) -> None:
        began = time.monotonic()
        try:
            answer = await connection.post(path, submission(), _JSON)
        except (ConnectionLost, OSError):
            into.lost += 1
            return
        finally:
            free.append(connection)
        taken_ms = (time.monotonic() - began) * 1e3
        into.statuses[answer.status] = into.statuses.get(answer.status, 0) + 1
        (into.accepted_ms if answer.status < 400 else into.refused_ms).append(taken_ms)
        into.without_retry_after += answer.status in (429, 503) and b"retry-after" not in answer.headers

    try:
        for slot in _timetable(1 / rate):
            await _until(slot)
            if free:
                task = asyncio.create_task(one(free.pop()))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for connection in free:
            connection.close()


async def visible(
    ingest_url: str, tally_url: str, petition_id: str, into: list[float], *, every: float, look_every: float = 0.005
) -> None:
    """Repeatedly sign a petition without other signers and wait until the tally API shows it, until cancelled.

    Args:
        into: gets the milliseconds from sending the signature to the first answer that counts it. They include the delay
            of polling, half of `look_every` on average.
        every: seconds between two signatures, if the last one is visible by then.
        look_every: seconds between two polls.
    """
    signing, looking = Connection(ingest_url), Connection(tally_url)
    path, tally = f"/v1/petitions/{petition_id}/signatures", f"/v1/petitions/{petition_id}/tally"
    try:
        count = (await looking.get(tally)).json()["count"]
        for slot in _timetable(every):
            await _until(slot)
            began = time.monotonic()
            if (await signing.post(path, submission(), _JSON)).status >= 400:
                continue
            while (await looking.get(tally)).json()["count"] <= count:
                await asyncio.sleep(look_every)
            into.append((time.monotonic() - began) * 1e3)
            count += 1
    finally:
        signing.close()
        looking.close()


@contextlib.asynccontextmanager
async def meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` beside the body, and end it with the body.

    Raises:
        Exception: the error that ended a piece of work early.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def seconds_until(
    condition: Callable[[], Coroutine[Any, Any, bool]], *, most: float, look_every: float = 0.02
) -> float:
    """Seconds until `condition` holds; infinite if it does not within `most`."""
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > most:
            return float("inf")
        await asyncio.sleep(look_every)
    return time.monotonic() - began


async def count_of(url: str, petition_id: str) -> int:
    """The petition's count in the tally API."""
    connection = Connection(url)
    try:
        return int((await connection.get(f"/v1/petitions/{petition_id}/tally")).json()["count"])
    finally:
        connection.close()


def percentile(values: list[float], part: float) -> float:
    """The smallest of `values` that at least `part` of them do not exceed (nearest rank).

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, -(-int(part * 1000) * len(ordered) // 1000) - 1)]


def _timetable(interval: float) -> Iterator[float]:
    """Moments one interval apart; missed ones are skipped."""
    slot = time.monotonic()
    while True:
        yield slot
        slot += interval
        late = time.monotonic() - slot
        if late > 0:
            slot += -(-late // interval) * interval


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
