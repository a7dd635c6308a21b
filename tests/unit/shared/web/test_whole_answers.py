"""Answers in one write, compared with uvicorn's two for the same."""

import asyncio
import socket
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from shared.web.connections import Connections, uvicorn_options
from shared.web.whole_answers import send_whole

HEADERS = [(b"content-type", b"text/plain"), (b"location", b"/here"), (b"content-length", b"5")]


async def serve(app: Any) -> tuple[uvicorn.Server, asyncio.Task[None], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connections = Connections(most=100, head_seconds=60, stall_seconds=60)
    config = uvicorn.Config(
        app, port=port, lifespan="off", log_config=None, date_header=False, **uvicorn_options(connections)
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    return server, task, port


async def exchange(port: int, request: bytes, answers: int) -> bytes:
    """The bytes that come back until the connection closes or so many answers of five bytes have arrived."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    found = b""
    while found.count(b"hello") < answers and (data := await asyncio.wait_for(reader.read(65_536), 5)):
        found += data
    writer.close()
    return found


async def usual(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello"})


async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    await send_whole(send, 202, HEADERS, b"hello")


POST = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("request_bytes", "answers"),
    [
        (POST, 1),
        (POST * 3, 3),  # sent ahead
        (POST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), 1),
        (b"POST / HTTP/1.0\r\ncontent-length: 0\r\n\r\n", 1),
        (POST.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"), 1),
    ],
)
async def test_a_client_sees_the_same_bytes(request_bytes: bytes, answers: int) -> None:
    seen = []
    for app in (usual, whole):
        server, task, port = await serve(app)
        seen.append(await exchange(port, request_bytes, answers))
        server.should_exit = True
        await task
    assert seen[0] == seen[1]
    assert seen[1].count(b"hello") == answers


async def test_what_stands_between_is_told_as_asgi_says() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await send_whole(send, 202, HEADERS, b"hello")
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert (sent[0]["status"], list(sent[0]["headers"]), sent[1]["body"]) == (202, HEADERS, b"hello")
