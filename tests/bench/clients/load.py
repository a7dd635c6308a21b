"""The load: wrk, an HTTP load generator in C, with a script that makes each signer a new one (`load.lua`).

wrk was chosen because it needs a fifth of a core where locust would need both, and it shares this machine with the measured
processes. It has no constant rate; its `delay` hook gives one (see `load.lua`). hey has a rate and one fixed body only:
every signature after the first would be a duplicate. wrk2, vegeta, oha and k6 are neither in Debian nor on PyPI.

wrk's own histogram is corrected for coordinated omission: an answer that took longer than twice the mean interval of its
connection stands for the requests that were not sent meanwhile. So percentiles are rather too high.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from deploy.local.parts.children import run_to_end
from deploy.local.parts.process import PartFailed

_SCRIPT: Final = Path(__file__).with_name("load.lua")
_runs = itertools.count(1)
_process: Final = f"{os.getpid():x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """The results of wrk.

    Attributes:
        seconds: from the first to the last answer.
        requests: answers, of any status.
        refused: answers with a status of 400 or above.
        broken: connections that failed, and answers that took over ten seconds.
        p50_ms, p90_ms, p99_ms, p999_ms, most_ms: latencies, of answers of any status.
        behind_ms: of a paced load: its largest delay. Above some ms the rate was not the requested one.
        cpu_seconds: of wrk itself.
        bytes: received.
    """

    seconds: float
    requests: int
    refused: int
    broken: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    most_ms: float
    behind_ms: float
    cpu_seconds: float
    bytes: int

    @property
    def accepted(self) -> int:
        """Answers below 400."""
        return self.requests - self.refused

    @property
    def rate(self) -> float:
        """Accepted a second."""
        return self.accepted / self.seconds


class LoadFailed(PartFailed):
    """wrk did not run, or not as asked. The message says what it printed."""


def signature_paths(petition_ids: Sequence[str]) -> list[str]:
    """Where these petitions are signed."""
    return [f"/v1/petitions/{petition_id}/signatures" for petition_id in petition_ids]


async def sign(
    url: str,
    petition_ids: Sequence[str],
    *,
    seconds: float,
    rate: float = 0.0,
    connections: int = 64,
    threads: int = 1,
    again: float = 0.0,
) -> LoadResult:
    """Post signatures, each of a signer who is new in this process's lifetime.

    Args:
        url: scheme, host and port.
        petition_ids: what is signed; by a power law if they are several.
        seconds: how long.
        rate: signatures a second; 0: as fast as answers arrive, `connections` at once.
        connections: kept open. With a rate, at least as many as requests may be unanswered.
        threads: of wrk; one sends 30,000 a second and leaves the other core alone.
        again: the part of signatures whose signer has signed before in this call: duplicates, if there is one
            petition.

    Raises:
        LoadFailed: wrk could not run.
    """
    return await _run(
        "sign",
        url,
        signature_paths(petition_ids),
        seconds=seconds,
        rate=rate,
        connections=connections,
        threads=threads,
        again=again,
    )


async def get(
    url: str,
    paths: Sequence[str],
    *,
    seconds: float,
    rate: float = 0.0,
    connections: int = 64,
    threads: int = 1,
    accept: str = "-",
    header: str = "-",
) -> LoadResult:
    """GET addresses, by a power law if they are several; see `sign`.

    Args:
        accept: the header of that name.
        header: one further header, ``name: value``.
    """
    return await _run(
        "get",
        url,
        paths,
        seconds=seconds,
        rate=rate,
        connections=connections,
        threads=threads,
        accept=accept,
        header=header,
    )


async def _run(
    kind: Literal["sign", "get"],
    url: str,
    paths: Sequence[str],
    *,
    seconds: float,
    rate: float,
    connections: int,
    threads: int,
    accept: str = "-",
    header: str = "-",
    again: float = 0.0,
) -> LoadResult:
    program = wrk()
    command = [
        *(program, f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"),
        *("-s", str(_SCRIPT), url, "--"),
        *(kind, f"{_process}-{next(_runs)}", f"{rate:g}", str(threads), accept, header, f"{again:g}", *paths),
    ]
    code, output = await run_to_end(command)
    return parsed(code, output)


def parsed(code: int, output: str) -> LoadResult:
    """What wrk printed, as numbers.

    Raises:
        LoadFailed: it failed, or printed no result.
    """
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if code != 0 or line is None:
        raise LoadFailed(f"wrk ended with exit code {code}:\n{output}")
    said = json.loads(line.removeprefix("RESULT "))
    return LoadResult(
        seconds=said["microseconds"] / 1e6,
        requests=said["requests"],
        refused=said["status"],
        broken=said["connect"] + said["read"] + said["write"] + said["timeout"],
        p50_ms=said["p50"] / 1e3,
        p90_ms=said["p90"] / 1e3,
        p99_ms=said["p99"] / 1e3,
        p999_ms=said["p999"] / 1e3,
        most_ms=said["most"] / 1e3,
        behind_ms=said["behind_ms"],
        cpu_seconds=said["cpu_seconds"],
        bytes=said["bytes"],
    )


def wrk() -> str:
    """Where wrk is.

    Raises:
        LoadFailed: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise LoadFailed("the load generator wrk is missing: python -m tests.needs bench")
    return found


async def warm(url: str, petition_ids: Sequence[str], seconds: float) -> None:
    """Sign for a while without measuring."""
    if seconds > 0:
        await sign(url, petition_ids, seconds=seconds)
        await asyncio.sleep(0.5)
