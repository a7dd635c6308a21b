"""A petition that nobody spoils: its signatures are counted, whatever is done to others."""

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
_LOOK_SECONDS: Final = 0.05


class Honest:
    """One such petition, signed again and again.

    Attributes:
        standing: how many signatures have to count now.
    """

    def __init__(self, parts: Parts, name: str) -> None:
        self._petition = Victim(parts, f"{SACRIFICE}{name}")
        self._withdrawn: set[int] = set()
        self._lock = asyncio.Lock()

    @property
    def standing(self) -> int:
        """How many signatures have to count now."""
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
        """Let somebody who has signed sign once more, which changes nothing: by another request, then by the same."""
        signer %= len(self._petition.signatures)
        if signer not in self._withdrawn:
            await self._petition.sign(signer, key=f"{self._petition.key(signer)}-again")
        await self._petition.sign(signer)

    async def withdraw(self, signer: int, *, within: float = SECONDS) -> list[str]:
        """Let somebody take a signature back; returns what is wrong if the count does not fall."""
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
