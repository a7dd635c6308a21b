"""Petitions that nobody spoils: their signatures are counted, whatever is done to others."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.faults.impossible.parts import Parts
from tests.faults.impossible.victim import AWAY, Victim
from tests.faults.notes import SACRIFICE

SIGNATURES: Final = 10
SECONDS: Final = 10.0
"""On an idle machine it takes less than one."""


class Honest:
    """One such petition, signed again and again."""

    def __init__(self, parts: Parts, name: str) -> None:
        self._petition = Victim(parts, f"{SACRIFICE}{name}")
        self._signed = 0
        self._lock = asyncio.Lock()

    async def make(self) -> None:
        """Make the petition.

        Raises:
            NotMade: a part is away.
        """
        await self._petition.make()
        self._signed = len(self._petition.signatures)

    async def sign_ten(self, *, within: float = SECONDS) -> list[str]:
        """Let ten people sign; returns what is wrong if they are not counted `within` seconds later."""
        async with self._lock:
            for signer in range(self._signed, self._signed + SIGNATURES):
                await self._petition.sign(signer)
            self._signed += SIGNATURES
            deadline = time.monotonic() + within
            while (shown := await self._shown()) != self._signed:
                if time.monotonic() > deadline:
                    return [f"honest signatures are not counted: {shown} of {self._signed} after {within:g} s"]
                await asyncio.sleep(0.05)
            return []

    async def _shown(self) -> int:
        try:
            return await self._petition.shown()
        except AWAY:
            return -1
