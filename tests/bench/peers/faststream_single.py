"""Peer (c): FastStream as its tutorial shows it, one message at a time, each acknowledged when its handler has returned.

Run with ``python -m tests.bench.peers.faststream_single verify`` or ``… tally``; KAFKA_BOOTSTRAP_SERVERS, POSTGRES_URL,
REDIS_URL, VERIFIED_TOPIC.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from redis.asyncio import Redis

VERIFY_GROUP = "peer-faststream-verify"
TALLY_GROUP = "peer-faststream-tally"
SUBMITTED = "signatures.submitted.v1"
VERIFIED = os.environ.get("VERIFIED_TOPIC", "signatures.verified.v1")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS peer_faststream_signatures (
    signature_id uuid        NOT NULL PRIMARY KEY,
    petition_id  text        NOT NULL,
    email        text        NOT NULL,
    name         text        NOT NULL,
    country      text        NOT NULL,
    submitted_at timestamptz NOT NULL,
    UNIQUE (petition_id, email)
);
"""

_INSERT = """
INSERT INTO peer_faststream_signatures (signature_id, petition_id, email, name, country, submitted_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING signature_id
"""


class Submitted(BaseModel):
    """A record of the submitted topic."""

    signature_id: UUID
    petition_id: str
    email: str
    name: str
    country: str
    submitted_at: datetime


class Verified(BaseModel):
    """A record of the verified topic."""

    signature_id: UUID
    petition_id: str
    country: str
    signed_at: datetime


def _broker() -> KafkaBroker:
    # Acknowledgements, idempotence and compression as in Groundswell; no log line for every message.
    return KafkaBroker(
        os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        allow_auto_create_topics=False,
        logger=None,
    )


def verify() -> FastStream:
    """Stores each signature that is its signer's first, and publishes it as verified."""
    broker = _broker()
    verified = broker.publisher(VERIFIED)
    pool: asyncpg.Pool

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        nonlocal pool
        async with asyncpg.create_pool(os.environ["POSTGRES_URL"], min_size=1, max_size=4) as pool:
            await pool.execute(_SCHEMA)
            yield

    @broker.subscriber(
        SUBMITTED, group_id=VERIFY_GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR
    )
    async def handle(submitted: Submitted) -> None:
        inserted = await pool.fetchval(
            _INSERT,
            submitted.signature_id,
            submitted.petition_id,
            submitted.email.strip().lower(),
            submitted.name,
            submitted.country,
            submitted.submitted_at,
        )
        if inserted is not None:
            fact = Verified(
                signature_id=submitted.signature_id,
                petition_id=submitted.petition_id,
                country=submitted.country,
                signed_at=submitted.submitted_at,
            )
            await verified.publish(fact, key=submitted.petition_id.encode())

    return FastStream(broker, lifespan=lifespan, logger=None)


def tally() -> FastStream:
    """Counts each verified signature in Redis, in total and by country."""
    broker = _broker()
    redis: Redis

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        nonlocal redis
        async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
            yield

    @broker.subscriber(VERIFIED, group_id=TALLY_GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def handle(verified: Verified) -> None:
        key = f"peer:{verified.petition_id}"
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.hincrby(key, "count", 1)
            pipeline.hincrby(key, f"country:{verified.country}", 1)
            await pipeline.execute()

    return FastStream(broker, lifespan=lifespan, logger=None)


if __name__ == "__main__":
    uvloop.run({"verify": verify, "tally": tally}[sys.argv[1]]().run())
