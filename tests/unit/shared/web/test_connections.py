"""Clients that are slow, silent or talk too much: they are ended, each within its time, and the others are served."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from shared.web import connections as guarded
from shared.web.connections import HEAD_BYTES, HEAD_FIELDS, PIPELINED, REQUEST_BYTES, Connections, uvicorn_options
from tests.support.tally_read_fakes import serving

HEAD_SECONDS, STALL_SECONDS = 0.4, 0.3
LARGE = b"x" * (32 * 1024 * 1024)
"""More than the buffers of both kernels hold."""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(guarded, "LINGER_SECONDS", 0.3)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, without looking at the body; ``/large`` and ``/one-piece`` with more
    than a client takes that does not read."""
    body = b"fine" if scope["path"] == "/" else LARGE
    piece = 1 << 20 if scope["path"] == "/large" else len(body)
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    for start in range(0, len(body), piece):
        chunk = body[start : start + piece]
        await send({"type": "http.response.body", "body": chunk, "more_body": start + len(chunk) < len(body)})


@dataclass
class Guarded:
    """A running server whose connections are watched."""

    url: str
    port: int
    registry: CollectorRegistry

    def cut(self, cause: str) -> float:
        return self.registry.get_sample_value("groundswell_http_connections_cut_total", {"cause": cause}) or 0.0

    @property
    def open(self) -> float:
        return self.registry.get_sample_value("groundswell_http_connections") or 0.0

    async def is_served(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            for _ in range(2):  # the second over the same connection
                assert (await http.get("/")).text == "fine"


@asynccontextmanager
async def guarded_server(
    most: int = 100, *, head_seconds: float = HEAD_SECONDS, stall_seconds: float = STALL_SECONDS
) -> AsyncIterator[Guarded]:
    registry = CollectorRegistry()
    watched = Connections(most=most, head_seconds=head_seconds, stall_seconds=stall_seconds, registry=registry)
    config = uvicorn.Config(application, port=0, lifespan="off", log_config=None, **uvicorn_options(watched))
    sweep = asyncio.create_task(watched.sweep())
    try:
        async with serving(config) as server:
            yield Guarded(server.url, int(server.url.rpartition(":")[2]), registry)
    finally:
        sweep.cancel()


@pytest.fixture
async def server() -> AsyncIterator[Guarded]:
    async with guarded_server() as running:
        yield running


async def ends(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server ends the connection, which it must, however slow this machine is."""
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


async def drip(writer: asyncio.StreamWriter, text: bytes, *, pause: float = 0.02) -> None:
    """Send one byte at a time, until the server has enough."""
    try:
        for number in range(len(text)):
            writer.write(text[number : number + 1])
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        return


async def test_whoever_sends_nothing_or_a_head_without_end_is_cut_off_and_others_are_served(server: Guarded) -> None:
    started = time.monotonic()
    silent, _ = await asyncio.open_connection("127.0.0.1", server.port)
    slow, pen = await asyncio.open_connection("127.0.0.1", server.port)
    lines, typewriter = await asyncio.open_connection("127.0.0.1", server.port)
    dripping = [
        asyncio.create_task(drip(pen, b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * 10_000)),
        asyncio.create_task(drip(typewriter, b"\r\n" * 10_000)),
    ]
    await server.is_served()
    await asyncio.gather(*(ends(reader) for reader in (silent, slow, lines)))
    assert time.monotonic() - started >= HEAD_SECONDS
    assert server.cut("head") == 3
    await asyncio.gather(*dripping)
    await server.is_served()


async def test_a_head_that_comes_slowly_but_in_time_is_answered() -> None:
    async with guarded_server(head_seconds=60) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await drip(writer, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", pause=0.005)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_the_time_runs_anew_after_every_answer() -> None:
    seconds = 2.0  # a machine that stands still for half of that would be too slow for this test
    async with guarded_server(head_seconds=seconds) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for _ in range(3):
            await asyncio.sleep(seconds / 2)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"fine")
        await drip(writer, b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 1000)
        await ends(reader)
        assert server.cut("head") == 1


async def test_a_body_that_goes_on_after_its_answer_ends_its_connection(server: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
    await reader.readuntil(b"fine")
    await drip(writer, b"x" * 1000)
    await ends(reader)
    assert server.cut("head") == 1


async def test_a_body_beyond_all_bounds_ends_its_connection_at_once(server: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = 0
    try:
        while sent < 10 * REQUEST_BYTES:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            sent += 0x10000
    except ConnectionError:
        pass  # the server has had enough
    assert REQUEST_BYTES // 2 < sent < 10 * REQUEST_BYTES
    assert server.cut("too_much") == 1
    await ends(reader)


ENDLESS = {
    "a head without end": b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * 40 * HEAD_BYTES,
    "an address without end": b"GET /" + b"a" * 40 * HEAD_BYTES,
    "fields without end": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * HEAD_BYTES,
    "fields after the body without end": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    + b"a: b\r\n" * HEAD_BYTES,
    "a whole head that is too large": b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * HEAD_BYTES + b"\r\n\r\n",
    "a whole head of too many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * (HEAD_FIELDS + 1) + b"\r\n",
    "thousands of requests ahead": b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000,
}


@pytest.mark.parametrize("talk", ENDLESS)
async def test_who_talks_too_much_is_ended_at_once(talk: str, server: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(ENDLESS[talk])
    answered = await ends(reader)
    assert answered.count(b"HTTP/1.1 200") <= 1
    await server.is_served()


async def test_a_large_head_and_a_few_requests_ahead_are_fine(server: Guarded) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 200) for number in range(HEAD_FIELDS - 10))
    writer.write((b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n") * (PIPELINED // 2))
    for _ in range(PIPELINED // 2):
        await reader.readuntil(b"fine")
    writer.close()


async def reads_nothing(server: Guarded, requests: bytes, *, buffer: int = 4096) -> socket.socket:
    """A client that asks and takes no answer."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, requests)
    return client


async def test_who_takes_no_answer_is_cut_off_and_others_are_served(server: Guarded) -> None:
    started = time.monotonic()
    unread = await reads_nothing(server, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    last = await reads_nothing(server, b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await server.is_served()
    async with asyncio.timeout(60):
        while server.cut("stalled") < 2:
            await asyncio.sleep(0.05)
    assert time.monotonic() - started >= STALL_SECONDS  # by the system; twice as long if that does not see it
    for client in (unread, last):
        client.close()


async def test_an_answer_that_stays_in_the_buffer_does_not_keep_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application is done and the connection closed: only its buffer is never empty."""
    monkeypatch.setattr(guarded, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(f"{__name__}.LARGE", b"x" * (5 << 20))  # little enough for the buffers of both kernels and ours
    async with guarded_server(stall_seconds=3_600) as server:  # so it is not the rule about full buffers
        client = await reads_nothing(server, b"GET /one-piece HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(60):
            while server.cut("stalled") == 0:
                await asyncio.sleep(0.02)
        client.close()


async def test_a_slow_reader_that_reads_is_not_cut_off(server: Guarded) -> None:
    loop = asyncio.get_running_loop()
    client = await reads_nothing(server, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", buffer=1 << 17)
    started, taken = time.monotonic(), 0
    async with asyncio.timeout(30):
        while taken < len(LARGE):
            taken += len(await loop.sock_recv(client, 1 << 20))
            await asyncio.sleep(0.01)
    assert time.monotonic() - started > 3 * STALL_SECONDS
    assert server.cut("stalled") == 0
    client.close()


async def test_a_crowd_of_silent_clients_shuts_nobody_out() -> None:
    async with guarded_server(
        most=20, head_seconds=60
    ) as server:  # on a slow machine, too, none is cut for its silence
        crowd = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        await server.is_served()
        assert server.open <= 20
        assert server.cut("crowded") >= 40
        for _, writer in crowd:
            writer.close()


async def test_when_all_are_at_work_one_more_is_told_to_come_back() -> None:
    async with guarded_server(most=3) as server:
        busy = [await reads_nothing(server, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(3)]
        for client in busy:
            await asyncio.get_running_loop().sock_recv(client, 1)  # its answer has begun, and goes no further
        reader, _ = await asyncio.open_connection("127.0.0.1", server.port)
        assert (await ends(reader)).startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n")
        for client in busy:
            client.close()
