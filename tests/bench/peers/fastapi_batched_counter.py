"""Peer (b): as (a), but the counters are updated once a minute, as a government petition site does it.

The site is the UK's (alphagov/e-petitions): no transaction waits for the row of a hot petition, and the visible count is up to
a minute old. Signatures are counted by the time at which they were stored, some seconds late, so that open transactions are not
missed.

Run with ``python -m tests.bench.peers.fastapi_batched_counter``; HOST, PORT, POSTGRES_URL, COUNT_SECONDS (60).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request

from tests.bench.peers.form import SignatureForm
from tests.bench.peers.serving import serve

_SCHEMA = """
SELECT pg_advisory_xact_lock(4712);  -- of several processes that start at once, one makes the tables
CREATE TABLE IF NOT EXISTS peer_batched_petitions (
    petition_id text   NOT NULL PRIMARY KEY,
    count       bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS peer_batched_signatures (
    signature_id bigint      NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    petition_id  text        NOT NULL,
    email        text        NOT NULL,
    name         text        NOT NULL,
    country      text        NOT NULL,
    postcode     text        NULL,
    comment      text        NULL,
    consent      boolean     NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (petition_id, email)
);
CREATE INDEX IF NOT EXISTS peer_batched_created ON peer_batched_signatures (created_at);
CREATE TABLE IF NOT EXISTS peer_batched_counted (
    only_row boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    until    timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO peer_batched_counted DEFAULT VALUES ON CONFLICT DO NOTHING;
"""

_INSERT = """
INSERT INTO peer_batched_signatures (petition_id, email, name, country, postcode, comment, consent)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING
"""

_COUNT = """
UPDATE peer_batched_petitions SET count = count + fresh.number
FROM (SELECT petition_id, count(*) AS number FROM peer_batched_signatures
      WHERE created_at > $1 AND created_at <= $2 GROUP BY petition_id) AS fresh
WHERE peer_batched_petitions.petition_id = fresh.petition_id
"""

_LATE = "now() - interval '5 seconds'"
"""Seconds; no transaction here takes longer."""


async def count_once(pool: asyncpg.Pool) -> None:
    """Add what was stored since the last time. A lock on the one row serialises several processes."""
    async with pool.acquire() as connection, connection.transaction():
        since = await connection.fetchval("SELECT until FROM peer_batched_counted FOR UPDATE")
        until = await connection.fetchval(f"UPDATE peer_batched_counted SET until = {_LATE} RETURNING until")
        await connection.execute(_COUNT, since, until)


async def count_for_ever(pool: asyncpg.Pool, seconds: float) -> None:
    """Count once in `seconds`, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await count_once(pool)


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Open the pool, make the tables, and count in the background."""
    async with asyncpg.create_pool(os.environ["POSTGRES_URL"], min_size=10, max_size=10) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_SCHEMA)
        application.state.pool, application.state.known = pool, set()
        counting = asyncio.create_task(count_for_ever(pool, float(os.environ.get("COUNT_SECONDS", "60"))))
        yield
        counting.cancel()


app = FastAPI(lifespan=lifespan)


async def pool_of(request: Request) -> asyncpg.Pool:
    """The application's pool. A coroutine: FastAPI calls plain functions in another thread, which costs more."""
    pool: asyncpg.Pool = request.app.state.pool
    return pool


Pool = Annotated[asyncpg.Pool, Depends(pool_of)]


async def _require_petition(request: Request, pool: asyncpg.Pool, petition_id: str) -> None:
    known: set[str] = request.app.state.known  # petitions are never removed, so each is looked up once
    if petition_id in known:
        return
    if not await pool.fetchval(
        "SELECT EXISTS (SELECT FROM peer_batched_petitions WHERE petition_id = $1)", petition_id
    ):
        raise HTTPException(404, "no such petition")
    known.add(petition_id)


@app.post("/v1/petitions/{petition_id}/signatures", status_code=201)
async def sign(petition_id: str, form: SignatureForm, pool: Pool, request: Request) -> dict[str, str]:
    """Store the signature; a signer's second one changes nothing."""
    await _require_petition(request, pool, petition_id)
    await pool.execute(
        _INSERT, petition_id, form.email, form.name, form.country.upper(), form.postcode, form.comment, form.consent
    )
    return {"status": "verified"}


@app.put("/v1/petitions/{petition_id}")
async def create(petition_id: str, pool: Pool) -> dict[str, str]:
    """Create a petition, if it is not there yet."""
    await pool.execute(
        "INSERT INTO peer_batched_petitions (petition_id) VALUES ($1) ON CONFLICT DO NOTHING", petition_id
    )
    return {"petition_id": petition_id}


@app.get("/v1/petitions/{petition_id}/tally")
async def tally(petition_id: str, pool: Pool) -> dict[str, str | int]:
    """The petition's count at its last update."""
    count = await pool.fetchval("SELECT count FROM peer_batched_petitions WHERE petition_id = $1", petition_id)
    if count is None:
        raise HTTPException(404, "no such petition")
    return {"petition_id": petition_id, "count": count}


@app.get("/livez")
async def live() -> dict[str, str]:
    """It answers, so the pool is open."""
    return {"status": "ready"}


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_batched_counter:app")
