"""Requests that can be read in two ways, on the socket of a running server: refused, counted, and the connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from shared.web.connections import HEAD_FIELDS, Connections, uvicorn_options
from shared.web.malformed import CAUSES, CODE, ONCE, fields_of
from tests.support.tally_read_fakes import serving

BODY = b'{"a":1}'
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes the request; ``/slow`` only after its whole body, ``/early`` without reading the body."""
    early = scope["path"] == "/early"
    body = b"" if early else await Request(scope, receive).body()
    fields = {name.decode(): value.decode("latin-1") for name, value in fields_of(scope).items()}
    assert len(fields) == len(scope["headers"])
    answer = {"method": scope["method"], "path": scope["path"], "body": body.decode(), "fields": fields}
    await JSONResponse(answer)(scope, receive, send)


@dataclass
class Server:
    """A running server, and what it has refused since the test began."""

    port: int
    registry: CollectorRegistry

    def __post_init__(self) -> None:
        self._before = {cause: self._ever_refused(cause) for cause in CAUSES}

    def _ever_refused(self, cause: str) -> float:
        return self.registry.get_sample_value("groundswell_http_requests_malformed_total", {"cause": cause}) or 0.0

    def refused(self, cause: str) -> float:
        return self._ever_refused(cause) - self._before[cause]

    @property
    def all_refused(self) -> float:
        return sum(self.refused(cause) for cause in CAUSES)


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Server]:
    """One for all tests: to end a server takes longer than a test."""
    registry = CollectorRegistry()
    watched = Connections(most=100, head_seconds=10, stall_seconds=10, registry=registry)
    config = uvicorn.Config(application, port=0, lifespan="off", log_config=None, **uvicorn_options(watched))
    async with serving(config) as running:
        yield Server(int(running.url.rpartition(":")[2]), registry)


@pytest.fixture
def server(running: Server) -> Server:
    return Server(running.port, running.registry)


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What the application was given."""
        assert self.status == 200
        seen: dict[str, Any] = json.loads(self.body)
        return seen


async def answer(reader: asyncio.StreamReader) -> Answer:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").splitlines()
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return Answer(int(head[0].split()[1]), fields, await reader.readexactly(int(fields.get("content-length", 0))))


async def is_ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):  # that too is an end
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def ask(server: Server, sent: bytes) -> tuple[Answer, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    return await answer(reader), reader, writer


def request(line: str, *fields: str | bytes, body: bytes = b"", host: bool = True) -> bytes:
    """A request as it goes over the wire."""
    all_fields = (line, "Host: x", *fields) if host else (line, *fields)
    lines = [field if isinstance(field, bytes) else field.encode("latin-1") for field in all_fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(*fields: str | bytes, body: bytes = BODY) -> bytes:
    return request("POST / HTTP/1.1", *fields, body=body)


TWO_WAYS = {
    "two hosts": ("host", request("GET / HTTP/1.1", "Host: y")),
    "the same host twice": ("host", request("GET / HTTP/1.1", "Host: x")),
    "no host": ("host", request("GET / HTTP/1.1", host=False)),
    "an empty host": ("host", request("GET / HTTP/1.1", "Host:", host=False)),
    "two hosts in one field": ("host", request("GET / HTTP/1.1", "Host: a.example,b.example", host=False)),
    "a host that is none": ("host", request("GET / HTTP/1.1", "Host: a b/c@d", host=False)),
    "no version": ("version", b"GET /\r\n"),
    "no version, and fields": ("version", b"GET /\r\nHost: x\r\n\r\n"),
    "version 0.9": ("version", request("GET / HTTP/0.9")),
    "version 2.0": ("version", request("GET / HTTP/2.0")),
    "chunks in 1.0": ("transfer_encoding", request("POST / HTTP/1.0", "Transfer-Encoding: chunked", body=CHUNKED)),
    "chunks and another coding": ("transfer_encoding", post("Transfer-Encoding: gzip, chunked", body=CHUNKED)),
    "a coding that only sounds like chunked": (
        "transfer_encoding",
        post("Transfer-Encoding: xchunked", body=CHUNKED),
    ),
    "a fragment": ("target", request("GET /a#b HTTP/1.1")),
    "an encoded slash": ("target", request("GET /a%2Fb HTTP/1.1")),
    "an address with a login": ("target", request("GET http://me:secret@x/ HTTP/1.1")),
    "an address of another kind": ("target", request("GET ftp://x/ HTTP/1.1")),
    **{
        f"two {name.decode()}": ("repeated_field", post(LENGTH, name + b": one", name + b": two"))
        for name in sorted(ONCE - {b"host", b"content-length", b"transfer-encoding"})
    },
}
TWO_WAYS["two hosts"] = ("repeated_field", TWO_WAYS["two hosts"][1])
TWO_WAYS["the same host twice"] = ("repeated_field", TWO_WAYS["the same host twice"][1])


@pytest.mark.parametrize("what", TWO_WAYS)
async def test_what_can_be_read_in_two_ways_is_refused_counted_and_ends_the_connection(
    what: str, server: Server
) -> None:
    cause, sent = TWO_WAYS[what]
    refusal, reader, writer = await ask(server, sent)
    assert (refusal.status, refusal.fields["connection"]) == (400, "close")
    if refusal.fields["content-type"] == "application/problem+json":
        problem = json.loads(refusal.body)
        assert problem["type"].endswith(f":{CODE}")
        assert problem["detail"] == CAUSES[cause]
    await is_ended(reader)
    assert server.refused(cause) == server.all_refused == 1
    writer.close()


OF_THE_PARSER = {
    "length and chunks": post(LENGTH, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": post("Transfer-Encoding: chunked", LENGTH, body=b"0\r\n\r\n"),
    "two lengths": post(LENGTH, "Content-Length: 5"),
    "the same length twice": post(LENGTH, LENGTH),
    "a list of lengths": post(f"{LENGTH}, {len(BODY)}"),
    "a length with a sign": post(f"Content-Length: +{len(BODY)}"),
    "a length in hexadecimal": post("Content-Length: 0x7"),
    "an empty length": post("Content-Length:"),
    "a length beyond 64 bits": post(f"Content-Length: {2**64 + len(BODY)}"),
    "no coding": post("Transfer-Encoding:", body=b""),
    "another coding": post("Transfer-Encoding: identity", LENGTH),
    "a coding after chunked": post("Transfer-Encoding: chunked, identity", body=CHUNKED),
    "chunked twice": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKED),
    "a folded line": post(LENGTH, "X-A: a\r\n b"),
    "a folded length": post(f"Content-Length:\r\n {len(BODY)}"),
    "a bare CR in a field": post(LENGTH, "X-A: a\rX-B: b"),
    "a bare LF after a field": post(LENGTH, "X-A: a\nX-B: b"),
    "bare LF everywhere": post(LENGTH).replace(b"\r\n", b"\n"),
    "a blank before the colon": post(f"Content-Length : {len(BODY)}"),
    "a NUL in a field": post(LENGTH, b"X-A: a\0b"),
    "a NUL in the address": request("GET /\0 HTTP/1.1"),
    "an address that is not ASCII": request("GET /\xff\xfe HTTP/1.1"),
    "a field without a name": request("GET / HTTP/1.1", ": x"),
    "a method nobody knows": request("PLANT / HTTP/1.1"),
    "version 1.2": request("GET / HTTP/1.2"),
    "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the beginning of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "an address for a proxy": request("CONNECT evil.example:443 HTTP/1.1"),
    "a path for a proxy": request("CONNECT / HTTP/1.1"),
    "an address without a path": request("GET http://x HTTP/1.1"),
    "a chunk of no size": post("Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n"),
    "a chunk that ends with LF": post("Transfer-Encoding: chunked", body=CHUNKED.replace(b"\r\n", b"\n")),
}


@pytest.mark.parametrize("what", OF_THE_PARSER)
async def test_what_is_no_http_is_refused_counted_and_ends_the_connection(what: str, server: Server) -> None:
    refusal, reader, writer = await ask(server, OF_THE_PARSER[what])
    assert (refusal.status, refusal.fields["connection"]) == (400, "close")
    await is_ended(reader)
    assert server.refused("unreadable") == server.all_refused == 1
    writer.close()


async def test_a_head_that_is_too_large_is_counted_too(server: Server) -> None:
    fields = [f"X-{number}: a" for number in range(HEAD_FIELDS)]
    refusal, reader, writer = await ask(server, request("GET / HTTP/1.1", *fields))
    assert refusal.status == 400
    await is_ended(reader)
    assert server.refused("too_much") == server.all_refused == 1
    writer.close()


FINE = {
    "HTTP/1.0 without a host": request("GET / HTTP/1.0", host=False),
    "a host with a port": request("GET / HTTP/1.1", "Host: sign.example:8001", host=False),
    "a host that is an IPv6 address": request("GET / HTTP/1.1", "Host: [2001:db8::7]:8001", host=False),
    "chunks, in capitals": post("Transfer-Encoding: Chunked", body=CHUNKED),
    "an address with a host": request("GET http://x/ HTTP/1.1"),
    "a query with an encoded slash": request("GET /?next=a%2Fb HTTP/1.1"),
    "line breaks before the request": b"\r\n\r\n" + request("GET / HTTP/1.1"),
    "an expectation nobody knows": post(LENGTH, "Expect: a miracle"),
    "a length with zeros before it": post(f"Content-Length: 000{len(BODY)}"),
}


@pytest.mark.parametrize("what", FINE)
async def test_what_can_be_read_in_one_way_is_served(what: str, server: Server) -> None:
    answered, _, writer = await ask(server, FINE[what])
    assert answered.seen["path"] == "/"
    assert server.all_refused == 0
    writer.close()


async def test_repeated_fields_that_are_lists_become_one(server: Server) -> None:
    sent = post(LENGTH, "Accept: a/b", "Cookie: a=1", "accept: text/html", "Cookie: b=2", "X-Forwarded-For: 192.0.2.1")
    answered, _, writer = await ask(server, sent)
    assert answered.seen["fields"] == {
        "host": "x",
        "content-length": str(len(BODY)),
        "accept": "a/b, text/html",
        "cookie": "a=1; b=2",
        "x-forwarded-for": "192.0.2.1",
    }
    writer.close()


async def test_fields_after_the_body_do_not_become_fields_of_the_request(server: Server) -> None:
    sent = post("Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"X-Api-Key: planted\r\nHost: y\r\n\r\n")
    answered, reader, writer = await ask(server, sent)
    assert answered.seen["body"] == BODY.decode()
    assert answered.seen["fields"] == {"host": "x", "transfer-encoding": "chunked"}
    writer.write(request("GET /next HTTP/1.1"))
    assert (await answer(reader)).seen["path"] == "/next"
    writer.close()


WISHES = {
    "no body": (request("GET / HTTP/1.1", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"), ""),
    "a length": (post(LENGTH, "Connection: Upgrade", "Upgrade: h2c"), BODY.decode()),
    "chunks": (post("Transfer-Encoding: chunked", "Connection: Upgrade", "Upgrade: foo", body=CHUNKED), BODY.decode()),
    "a WebSocket": (request("GET / HTTP/1.1", "Connection: upgrade", "Upgrade: websocket"), ""),
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("pieces", [1, 3, 1_000])
async def test_the_wish_for_another_protocol_is_ignored_and_the_request_served(
    wish: str, pieces: int, server: Server
) -> None:
    sent, body = WISHES[wish]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    size = -(-len(sent) // pieces)
    for start in range(0, len(sent), size):
        writer.write(sent[start : start + size])
        await writer.drain()
        await asyncio.sleep(0)
    answered = await answer(reader)
    assert (answered.seen["body"], answered.seen["path"]) == (body, "/")
    # The connection goes on to be one of HTTP/1.1.
    writer.write(sent + request("GET /next HTTP/1.1"))
    assert (await answer(reader)).seen["body"] == body
    assert (await answer(reader)).seen["path"] == "/next"
    assert server.all_refused == 0
    writer.close()


async def test_thousands_of_such_wishes_in_one_block_end_the_connection(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(WISHES["no body"][0] * 3_000)
    try:
        rest = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        rest = b""
    assert rest.count(b"HTTP/1.1 200") <= 16
    answered, _, again = await ask(server, request("GET / HTTP/1.1"))
    assert answered.status == 200
    for one in (writer, again):
        one.close()


@pytest.mark.parametrize(
    "bad",
    [request("GET / HTTP/1.1", "Host: y"), request("GET /a#b HTTP/1.1"), request("GET / HTTP/1.1", "X-A: a\rb")],
)
async def test_a_refusal_does_not_overtake_the_answers_before_it(bad: bytes, server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("GET /first HTTP/1.1") + request("GET /second HTTP/1.1") + bad)
    assert (await answer(reader)).seen["path"] == "/first"
    assert (await answer(reader)).seen["path"] == "/second"
    rest = await asyncio.wait_for(reader.read(), 5)
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400")
    assert server.all_refused == 1
    writer.close()


async def test_a_body_that_breaks_off_after_its_answer_is_not_answered_again(server: Server) -> None:
    sent = request("POST /early HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\na\r\n")
    answered, reader, writer = await ask(server, sent)
    assert answered.seen["path"] == "/early"
    writer.write(b"zz\r\n")
    await is_ended(reader)
    assert server.refused("unreadable") == 1
    writer.close()


async def test_a_client_of_1_0_gets_no_interim_answer(server: Server) -> None:
    for version, first in (("1.1", 100), ("1.0", 200)):
        answered, _, writer = await ask(
            server, request(f"POST / HTTP/{version}", LENGTH, "Expect: 100-continue", body=BODY)
        )
        assert answered.status == first
        writer.close()


def test_every_cause_is_counted_from_the_start() -> None:
    registry = CollectorRegistry()
    Connections(most=1, head_seconds=1, stall_seconds=1, registry=registry)
    for cause in CAUSES:
        assert registry.get_sample_value("groundswell_http_requests_malformed_total", {"cause": cause}) == 0.0
