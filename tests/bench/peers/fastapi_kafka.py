"""Peer (e): FastAPI and aiokafka; the signature is published, and the answer waits for the acknowledgement.

The producer has the settings of Groundswell's own: ``acks=all``, idempotent, lz4, 2 ms to fill a batch.

Run with ``python -m tests.bench.peers.fastapi_kafka``; HOST, PORT, KAFKA_BOOTSTRAP_SERVERS, TOPIC.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from fastapi import Depends, FastAPI, Request

from tests.bench.peers.form import SignatureForm
from tests.bench.peers.serving import serve

TOPIC = os.environ.get("TOPIC", "signatures.submitted.v1")


class Submitted(SignatureForm):
    """The record's value."""

    signature_id: UUID
    petition_id: str
    submitted_at: datetime


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Connect the producer."""
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=2,
    )
    await producer.start()
    application.state.producer = producer
    try:
        yield
    finally:
        await producer.stop()


app = FastAPI(lifespan=lifespan)


async def producer_of(request: Request) -> AIOKafkaProducer:
    """The application's producer. A coroutine: FastAPI calls plain functions in another thread, which costs more."""
    producer: AIOKafkaProducer = request.app.state.producer
    return producer


@app.post("/v1/petitions/{petition_id}/signatures", status_code=202)
async def sign(
    petition_id: str, form: SignatureForm, producer: Annotated[AIOKafkaProducer, Depends(producer_of)]
) -> dict[str, str]:
    """Publish the signature; all of one signer's in one partition."""
    signature_id = uuid4()
    submitted = Submitted(
        **form.model_dump(), signature_id=signature_id, petition_id=petition_id, submitted_at=datetime.now(UTC)
    )
    await producer.send_and_wait(
        TOPIC, value=submitted.model_dump_json().encode(), key=f"{petition_id}:{form.email}".encode()
    )
    return {"signature_id": str(signature_id), "status": "submitted"}


@app.get("/livez")
async def live() -> dict[str, str]:
    """It answers, so the producer is connected."""
    return {"status": "ready"}


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_kafka:app")
