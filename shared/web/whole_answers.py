"""Writes a complete answer in one call.

In ASGI an answer is sent as a head and a body, which uvicorn validates, formats and writes separately: two system calls and
10 µs, a tenth of the cost of accepting a signature. The hottest endpoint has its whole, well-formed answer at once.

docs/adr/0010-hot-paths.md has the measurement: 5 to 13 % of what a signature costs in ingest.
tests/unit/shared/web/test_whole_answers.py compares the bytes with uvicorn's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers = Sequence[tuple[bytes, bytes]]


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer a request: in one write if `send` is uvicorn's own, otherwise as two ASGI messages, through any middleware.

    Args:
        send: The request's ASGI callable.
        status: The HTTP status.
        headers: All fields, including ``content-length``; names, in lower case, and values are sent as they are.
        body: The whole body.
    """
    cycle: Any = getattr(send, "__self__", None)
    if type(cycle) is RequestResponseCycle and not cycle.flow.write_paused:
        _write(cycle, status, headers, body)
    else:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _write(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    """Do for head and body together what `RequestResponseCycle.send` does."""
    if cycle.disconnected:
        return
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
    cycle.transport.write(b"".join(parts))
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
