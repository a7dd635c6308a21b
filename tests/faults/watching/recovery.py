"""Measures recovery after a fault from outside, by a signature sent at its end."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx

from tests.faults.sending.sender import Sender
from tests.faults.sending.surge import Surge
from tests.faults.world import World

_LOOK_SECONDS: Final = 0.1
MOST_SECONDS: Final = 60.0
"""A system that takes longer than this has not recovered by itself."""


class NotRecovered(RuntimeError):
    """The system did not recover in time. The message says what was missing."""


class Recovery:
    """Measures recoveries of one run; several measurements may overlap."""

    def __init__(self, world: World, surge: Surge, sender: Sender) -> None:
        self._world, self._surge, self._sender = world, surge, sender
        self._accepted = 0

    async def measure(self) -> float:
        """Send a signature; return the seconds until it is in the public count and every service is ready.

        Raises:
            NotRecovered: that took longer than `MOST_SECONDS`.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(MOST_SECONDS):
                await self._sender.send_one(self._surge.next_probe())
                self._accepted += 1
                wanted = self._accepted
                while await self.count(self._surge.probe) < wanted:
                    await asyncio.sleep(_LOOK_SECONDS)
                while not await self.all_ready():
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            missing = await self._world.not_ready()
            raise NotRecovered(
                f"not whole again after {MOST_SECONDS:.0f} s: {await self.count(self._surge.probe)} of"
                f" {self._accepted} probes counted; not ready: {', '.join(missing) or 'none'}"
            ) from None
        return time.monotonic() - began

    async def count(self, petition_id: str) -> int:
        """The public count, or -1 while it cannot be read."""
        try:
            answer = await self._world.http.get(f"{self._world.tally_url}/v1/petitions/{petition_id}/tally")
        except httpx.TransportError:
            return -1
        return int(answer.json()["count"]) if answer.status_code == httpx.codes.OK else -1

    async def all_ready(self) -> bool:
        """Whether every service says, at this moment, that it is ready."""
        return not await self._world.not_ready()
