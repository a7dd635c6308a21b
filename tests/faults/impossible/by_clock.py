"""One process with a clock of another century: an ingest that stamps what verify would refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from deploy.local.parts.service import ServiceProcess
from tests.faults.breaking.clock import faketime_environment, remove_leftovers, set_clock
from tests.faults.impossible.victim import Victim

YEAR_SECONDS: Final = 365 * 24 * 3600
CENTURIES: Final = {"1970": -56 * YEAR_SECONDS, "2101": 75 * YEAR_SECONDS}
_LOOK_SECONDS: Final = 0.2
_INSTANCE: Final = 900
_SIGNER: Final = 700_000


class AnotherClock:
    """A separate ingest, and its clock."""

    def __init__(self, process: ServiceProcess, clock: Path) -> None:
        self._process, self._clock = process, clock

    def put_right(self) -> None:
        """The machine's clock is corrected."""
        set_clock(self._clock, 0)

    async def accepts_nothing(self, victim: Victim, *, within: float) -> list[str]:
        """Send it signatures until it says that its clock is wrong; returns what is wrong with its answers."""
        return await self._answers(
            victim, lambda status, text: status == httpx.codes.SERVICE_UNAVAILABLE and "clock_wrong" in text, within
        )

    async def accepts(self, victim: Victim, *, within: float) -> list[str]:
        """Send it signatures until it accepts one; returns what is wrong with its answers."""
        wrong = await self._answers(victim, lambda status, _: status == httpx.codes.ACCEPTED, within)
        if not wrong:
            await victim.sign(_SIGNER)  # the same request, so the same signature
        return wrong

    async def _answers(self, victim: Victim, wanted: Callable[[int, str], bool], within: float) -> list[str]:
        url = f"{self._process.url}/v1/petitions/{victim.petition_id}/signatures"
        body = {"email": victim.email(_SIGNER), "name": "Robin Example", "country": "BE", "consent": True}
        headers = {**victim.parts.partner, "idempotency-key": victim.key(_SIGNER)}
        deadline, last = time.monotonic() + within, "nothing"
        while time.monotonic() < deadline:
            try:
                answer = await victim.parts.http.post(url, json=body, headers=headers)
            except httpx.TransportError as error:
                last = repr(error)  # it is still starting
            else:
                if wanted(answer.status_code, answer.text):
                    return []
                last = f"{answer.status_code} {answer.text[:200]}"
                if answer.is_success:
                    break
            await asyncio.sleep(_LOOK_SECONDS)
        return [f"an ingest whose clock is wrong, or was, answers {last}"]


@asynccontextmanager
async def another_clock(
    environment: Mapping[str, str], *, seconds: int, clock: Path, logs: Path
) -> AsyncIterator[AnotherClock]:
    """One more ingest, whose clock is wrong by so many seconds.

    Args:
        environment: of the system's services.
        clock: the file that sets this process's clock.
        logs: where it writes its log.
    """
    faked = faketime_environment(clock)
    set_clock(clock, seconds)
    process = ServiceProcess("ingest", environment={**environment, **faked}, log_dir=logs, instance=_INSTANCE)
    await process.launch()
    try:
        yield AnotherClock(process, clock)
    finally:
        await process.stop()
        remove_leftovers()
