"""An honest petition: its signatures are counted, whatever acts do to others."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tests.faults.impossible.parts import Parts
from tests.faults.impossible.victim import AWAY, Victim
from tests.faults.notes import SACRIFICE

SIGNATURES: Final = 10
SECONDS: Final = 10.0
"""Seconds; an idle machine needs less than one."""
_LOOK_SECONDS: Final = 0.05


class Honest:
    """One such petition, signed again and again.

    Attributes:
        standing: the number of signatures that must count now.
    """

    def __init__(self, parts: Parts, name: str) -> None:
        self._petition = Victim(parts, f"{SACRIFICE}{name}")
        self._withdrawn: set[int] = set()
        self._lock = asyncio.Lock()

    @property
    def standing(self) -> int:
        """The number of signatures that must count now."""
        return len(self._petition.signatures) - len(self._withdrawn)

    async def make(self) -> None:
        """Make the petition.

        Raises:
            NotMade: a part is away.
        """
        await self._petition.make()

    async def sign_ten(self, *, within: float = SECONDS) -> list[str]:
        """Let ten people sign; returns what is wrong if they are not counted `within` seconds later."""
        async with self._lock:
            first = len(self._petition.signatures)
            for signer in range(first, first + SIGNATURES):
                await self._petition.sign(signer)
            return await self._counted(within)

    async def sign_again(self, signer: int) -> None:
        """Let a signer sign again, by another request and then by the same, which changes nothing."""
        signer %= len(self._petition.signatures)
        if signer not in self._withdrawn:
            await self._petition.sign(signer, key=f"{self._petition.key(signer)}-again")
        await self._petition.sign(signer)

    async def withdraw(self, signer: int, *, within: float = SECONDS) -> list[str]:
        """Let a signer withdraw a signature; returns what is wrong if the count does not fall."""
        async with self._lock:
            signer %= len(self._petition.signatures)
            await self._petition.withdraw(signer)
            self._withdrawn.add(signer)
            return await self._counted(within)

    async def _counted(self, within: float) -> list[str]:
        deadline = time.monotonic() + within
        while (shown := await self._shown()) != self.standing:
            if time.monotonic() > deadline:
                return [f"honest signatures are not counted: {shown} of {self.standing} after {within:g} s"]
            await asyncio.sleep(_LOOK_SECONDS)
        return []

    async def _shown(self) -> int:
        try:
            return await self._petition.shown()
        except AWAY:
            return -1
