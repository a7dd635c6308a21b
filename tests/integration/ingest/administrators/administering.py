"""Administrators, partners, and what the tests of them share."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from tests.support.running_ingest import AS_PARTNER, STATE, Ingest

KIM, LEE, PAT = "kims-secret-of-the-tests", "lees-secret-of-the-tests", "pats-secret-of-the-tests"
AS_KIM = {"Authorization": f"Bearer {KIM}"}
AS_LEE = {"Authorization": f"Bearer {LEE}"}
"""Bound to the organisations river-valley and harbour."""
AS_PAT = {"X-API-Key": PAT}
"""A partner's key, bound to river-valley."""
TOKENS = {
    "ADMIN_TOKENS": f"kim:{KIM},lee@river-valley+harbour:{LEE}",
    "API_KEYS": f"partner:{AS_PARTNER['X-API-Key']},pat@river-valley:{PAT}",
}
MERGE = {"content-type": "application/merge-patch+json"}
GUARDED: dict[str, Any] = {
    **STATE,
    "closes_at": "2099-01-01T00:00:00Z",
    "policy": {
        "confirmation": "required",
        "countries": ["NL", "BE"],
        "blocked_email_domains": ["trash.example"],
        "require_consent": True,
    },
}
RIVER = {**STATE, "organisation": {"slug": "river-valley", "name": "River Valley Together"}}


def new_id() -> str:
    return f"petition-{uuid4().hex[:12]}"


async def patch(ingest: Ingest, address: str, change: Any, **headers: str) -> httpx.Response:
    return await ingest.http.patch(address, content=json.dumps(change), headers={**AS_KIM, **MERGE, **headers})


async def events(ingest: Ingest, petition: str) -> list[asyncpg.Record]:
    """What was written down about a petition, given by its id or address, in order."""
    connection = await asyncpg.connect(ingest.postgres_url)
    try:
        return list(
            await connection.fetch(
                "SELECT * FROM admin_events WHERE petition_id = $1 ORDER BY at", petition.rpartition("/")[2]
            )
        )
    finally:
        await connection.close()
