"""The fences that this process knows, and the lock (`turn`) under which they move.

Contract: a known fence is a guess that saves a round trip. `apply.lua` compares it with the stored one, and applies nothing
where they differ. Code that moves fences, by counting a batch or rebuilding a tally, holds `turn`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.tally.counting.step import Step


class KnownFences:
    """By petition and lane, the last position counted."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._known: dict[str, dict[int, int]] = {}

    def of(self, petition_id: str) -> Mapping[int, int]:
        """The fences of a petition, as far as known."""
        return self._known.get(petition_id, {})

    def applied(self, petition_id: str, part: Step) -> None:
        """Note that a step was applied."""
        self._known[petition_id] = part.fences_after(self.of(petition_id))

    def learned(self, petition_id: str, fences: Mapping[int, int]) -> None:
        """Note the stored fences of some lanes."""
        self._known.setdefault(petition_id, {}).update(fences)

    def rebuilt(self, petition_id: str, fences: Mapping[int, int]) -> None:
        """Note that the tally was rebuilt, with these fences and no others."""
        self._known[petition_id] = dict(fences)

    def forget(self) -> None:
        """Forget all fences: partitions changed hands, so another process may have moved them."""
        self._known.clear()
