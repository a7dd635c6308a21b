"""Checks counts: a figure is only valid if the count is right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import httpx

_SECONDS: Final = 5.0
"""Seconds. Offsets are committed after Redis has counted, so this covers only the readers' short caching."""


class WrongCount(AssertionError):
    """A petition's count differs from what was sent. The message has the petition and both numbers."""


async def require_counts(tally_url: str, wanted: Mapping[str, int]) -> None:
    """Compare the counts that readers see.

    Raises:
        WrongCount: one differs, and still does after some seconds.
    """
    async with httpx.AsyncClient(base_url=tally_url, verify=False, trust_env=False) as client:
        for petition_id, count in wanted.items():
            deadline = time.monotonic() + _SECONDS
            while (found := await count_of(client, petition_id)) != count:
                if time.monotonic() > deadline:
                    raise WrongCount(f"{petition_id} has {found:,} signatures, and {count:,} went in")
                await asyncio.sleep(0.1)


async def count_of(client: httpx.AsyncClient, petition_id: str) -> int:
    """The count of a petition in the tally API."""
    answer = await client.get(f"/v1/petitions/{petition_id}/tally")
    return int(answer.raise_for_status().json()["count"])
