"""Peer (a), what most teams build: FastAPI and asyncpg; the signature and its petition's counter in one transaction.

Run with ``python -m tests.bench.peers.fastapi_postgres``; HOST, PORT, POSTGRES_URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Request

from tests.bench.peers.form import SignatureForm
from tests.bench.peers.serving import serve

_SCHEMA = """
SELECT pg_advisory_xact_lock(4711);  -- of several processes that start at once, one makes the tables
CREATE TABLE IF NOT EXISTS peer_petitions (
    petition_id text   NOT NULL PRIMARY KEY,
    count       bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS peer_signatures (
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
"""

_INSERT = """
INSERT INTO peer_signatures (petition_id, email, name, country, postcode, comment, consent)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING signature_id
"""


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Open the pool (asyncpg's default of ten connections) and make the tables."""
    async with asyncpg.create_pool(os.environ["POSTGRES_URL"], min_size=10, max_size=10) as pool:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_SCHEMA)
        application.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


async def pool_of(request: Request) -> asyncpg.Pool:
    """The application's pool. A coroutine: FastAPI calls plain functions in another thread, which costs more."""
    pool: asyncpg.Pool = request.app.state.pool
    return pool


Pool = Annotated[asyncpg.Pool, Depends(pool_of)]


@app.post("/v1/petitions/{petition_id}/signatures", status_code=201)
async def sign(petition_id: str, form: SignatureForm, pool: Pool) -> dict[str, str]:
    """Store the signature; a signer's second one changes nothing."""
    async with pool.acquire() as connection, connection.transaction():
        signature_id = await connection.fetchval(
            _INSERT,
            petition_id,
            form.email,
            form.name,
            form.country.upper(),
            form.postcode,
            form.comment,
            form.consent,
        )
        if signature_id is not None:
            counted = await connection.execute(
                "UPDATE peer_petitions SET count = count + 1 WHERE petition_id = $1", petition_id
            )
            if counted == "UPDATE 0":
                raise HTTPException(404, "no such petition")
    return {"status": "verified"}


@app.put("/v1/petitions/{petition_id}")
async def create(petition_id: str, pool: Pool) -> dict[str, str]:
    """Create a petition, if it is not there yet."""
    await pool.execute("INSERT INTO peer_petitions (petition_id) VALUES ($1) ON CONFLICT DO NOTHING", petition_id)
    return {"petition_id": petition_id}


@app.get("/v1/petitions/{petition_id}/tally")
async def tally(petition_id: str, pool: Pool) -> dict[str, str | int]:
    """The petition's count."""
    count = await pool.fetchval("SELECT count FROM peer_petitions WHERE petition_id = $1", petition_id)
    if count is None:
        raise HTTPException(404, "no such petition")
    return {"petition_id": petition_id, "count": count}


@app.get("/livez")
async def live() -> dict[str, str]:
    """It answers, so the pool is open."""
    return {"status": "ready"}


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_postgres:app")
