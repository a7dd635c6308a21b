"""Floor of accept: a bare ASGI callable on uvicorn that parses the body and waits for Kafka's acknowledgement.

No routes, no validation, no signer key, no petition, no limits; the record is the unchanged body. The producer has the
settings of Groundswell's own.

Run with ``python -m tests.bench.floors.asgi_produce``; HOST, PORT, KAFKA_BOOTSTRAP_SERVERS, TOPIC.
"""

from __future__ import annotations

import json
import os
from typing import Final

from aiokafka import AIOKafkaProducer
from starlette.types import Receive, Scope, Send

from tests.bench.peers.serving import serve

TOPIC: Final = os.environ.get("TOPIC", "signatures.submitted.v1")
_BODY: Final = b'{"status":"submitted"}'
_HEAD: Final = {
    "type": "http.response.start",
    "status": 202,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}
_END: Final = {"type": "http.response.body", "body": _BODY}

_producer: AIOKafkaProducer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Take one signature; any other method than POST is a liveness check."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["method"] == "POST":
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        form = json.loads(body)
        await _producer.send_and_wait(TOPIC, value=body, key=form["email"].encode())
    await send(_HEAD)
    await send(_END)


async def _lifespan(receive: Receive, send: Send) -> None:
    global _producer  # noqa: PLW0603  one application in one process
    await receive()
    _producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=2,
        max_batch_size=512 * 1024,
    )
    await _producer.start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _producer.stop()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    serve("tests.bench.floors.asgi_produce:app")
