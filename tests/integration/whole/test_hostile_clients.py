"""Hostile bytes and clients on the sockets of running services: they are refused or cut off, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.parts.service import ServiceProcess
from deploy.local.stack import Stack
from tests.support.hostile import CANARY, damaged, repeatable
from tests.support.system import System
from tests.support.waiting import eventually

PETITION: Final = "hostile-clients"
HEAD_SECONDS, STALL_SECONDS, CONNECTIONS = 2.0, 2.0, 400
SIGN: Final = f"/v1/petitions/{PETITION}/signatures"
STREAM: Final = f"/v1/petitions/{PETITION}/tally/stream"
BODY: Final = b'{"email":"ann@mail.example","name":"Ann","country":"NL"}'


def request(line: str, *fields: str | bytes, body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    lines = [field if isinstance(field, bytes) else field.encode("latin-1") for field in (line, "Host: x", *fields)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Public:
    """An ingest and a tally of one's own, with little patience."""

    ingest: ServiceProcess
    tally: ServiceProcess
    system: System | None

    @property
    def http(self) -> httpx.AsyncClient:
        assert self.system is not None
        return self.system.http

    async def serve_others(self) -> None:
        """Check that both answer at once to a well-behaved client."""
        started = time.monotonic()
        signed = await self.http.post(
            self.ingest.url + SIGN, content=BODY, headers={"content-type": "application/json"}
        )
        assert signed.status_code == 202
        shown = await self.http.get(f"{self.tally.url}/p/{PETITION}")
        assert shown.status_code == 200
        assert time.monotonic() - started < 30, "a busy machine takes a second or two; one that is held up, for ever"

    async def metric(self, process: ServiceProcess, name: str) -> float:
        for line in (await self.http.get(f"{process.url}/metrics")).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def logs(self) -> str:
        return self.ingest.log_file.read_text() + self.tally.log_file.read_text()


@asynccontextmanager
async def public_services(stack: Stack, log_dir: Path) -> AsyncIterator[Public]:
    environment = {
        **stack.environment,
        "HTTP_HEAD_SECONDS": str(HEAD_SECONDS),
        "HTTP_STALL_SECONDS": str(STALL_SECONDS),
        "INGEST_MAX_CONNECTIONS": str(CONNECTIONS),
        "TALLY_MAX_CONNECTIONS": str(CONNECTIONS),
    }
    ingest = ServiceProcess("ingest", environment=environment, log_dir=log_dir)
    tally = ServiceProcess("tally", environment=environment, log_dir=log_dir)
    async with ingest, tally:
        yield Public(ingest, tally, None)


@pytest.fixture(scope="module")
async def running(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Public]:
    """One ingest and one tally for all tests here: they would each move the stack's own partitions about."""
    async with public_services(running_stack, tmp_path_factory.mktemp("hostile")) as services:
        yield services


@pytest.fixture
async def public(running: Public, system: System) -> Public:
    """The same, while the whole system is well and knows the petition."""
    await system.start_petition(PETITION)

    async def known() -> bool:
        answers = [
            await system.http.get(f"{running.ingest.url}/v1/petitions/{PETITION}"),
            await system.http.get(f"{running.tally.url}/v1/petitions/{PETITION}/tally"),
        ]
        return all(answer.is_success for answer in answers)

    await eventually(known, "these instances know the petition, too")
    return replace(running, system=system)


async def exchange(port: int, sent: bytes, *, within: float = 20) -> bytes:
    """Send these bytes and no more; return what comes until the server is silent for a moment or ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(sent)
        async with asyncio.timeout(within):
            await writer.drain()
            answer = await reader.read(1 << 16)
    except (ConnectionError, TimeoutError):
        pass  # cut off
    finally:
        writer.close()
    return answer


JSON = "Content-Type: application/json"
WRONG: Final = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n",
    "a length that is no number": request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: x", body=BODY),
    "a negative length": request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: -1", body=BODY),
    "a length of thousands of digits": request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: " + "9" * 5_000),
    "two lengths": request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: 5", "Content-Length: 56", body=BODY),
    "length and chunks": request(
        f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunks of no size": request(f"POST {SIGN} HTTP/1.1", JSON, "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n"),
    "a chunk larger than memory": request(
        f"POST {SIGN} HTTP/1.1", JSON, "Transfer-Encoding: chunked", body=b"f" * 20 + b"\r\n{}"
    ),
    "an encoding nobody knows": request(f"POST {SIGN} HTTP/1.1", JSON, "Transfer-Encoding: planted", body=BODY),
    "a NUL in a field": request(f"GET {SIGN} HTTP/1.1", b"X-A: a\x00b"),
    "a line break in a field": request(f"GET {SIGN} HTTP/1.1", b"X-A: a\rX-B: b"),
    "a field without a name": request(f"GET {SIGN} HTTP/1.1", ": x"),
    "a space before the colon": request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length : 56", body=BODY),
    "an address that is none": request("GET http://[::1 HTTP/1.1"),
    "an address in another encoding": request("GET /\xff\xfe HTTP/1.1"),
    "an address for a proxy": request("CONNECT evil.example:443 HTTP/1.1"),
    "another version": request("GET / HTTP/9.9"),
    "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a WebSocket": request("GET / HTTP/1.1", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: x"),
}


@pytest.mark.parametrize("service", ["ingest", "tally"])
async def test_what_is_no_request_is_refused_and_told_nobody(service: str, system: System) -> None:
    process = system.stack.services[service][0]  # type: ignore[index]
    before = len(process.log_file.read_text())
    for what, sent in WRONG.items():
        answer = await exchange(process.port, sent)
        status = answer[9:12]
        assert status in (b"", b"400", b"404", b"405", b"413"), f"{what}: {answer[:200]!r}"
        assert (await system.http.get(f"{process.url}/livez")).status_code == 200
    log = process.log_file.read_text()[before:]
    assert "Traceback" not in log
    assert '"error"' not in log


TWO_WAYS: Final = {
    "two hosts": request("GET /livez HTTP/1.1", "Host: y"),
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "no version": b"GET /livez\r\n",
    "version 2.0": request("GET /livez HTTP/2.0"),
    "chunks in 1.0": request("POST /livez HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and another coding": request("POST /livez HTTP/1.1", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "an encoded slash": request("GET /x%2F..%2Flivez HTTP/1.1"),
    "two keys": request("GET /livez HTTP/1.1", "X-API-Key: a", "X-API-Key: b"),
    "two tokens": request("GET /livez HTTP/1.1", "Authorization: Bearer a", "Authorization: Bearer b"),
    "a folded line": request("GET /livez HTTP/1.1", "X-A: a\r\n b"),
    "length and chunks": WRONG["length and chunks"],
    "a path for a proxy": request("CONNECT /livez HTTP/1.1"),
}


@pytest.mark.parametrize("service", ["ingest", "verify", "tally", "notify"])
async def test_what_can_be_read_in_two_ways_is_refused_by_every_service(service: str, system: System) -> None:
    process = system.stack.services[service][0]  # type: ignore[index]

    async def refused() -> float:
        lines = (await system.http.get(f"{process.url}/metrics")).text.splitlines()
        counts = [line for line in lines if line.startswith("groundswell_http_requests_malformed_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in counts)

    before = await refused()
    for what, sent in TWO_WAYS.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(sent)
        async with asyncio.timeout(60):
            answer = await reader.read()  # to the end: the connection closes
        assert answer.startswith(b"HTTP/1.1 400"), f"{what}: {answer[:200]!r}"
        assert answer.count(b"HTTP/1.1 400") == 1, what
        writer.close()
    assert await refused() - before == len(TWO_WAYS)


async def test_credentials_of_both_kinds_are_refused(system: System) -> None:
    process = system.stack.services["ingest"][0]
    both = request("GET /v1/signatures/x HTTP/1.1", "X-API-Key: a", "Authorization: Bearer a")
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(both)
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"credentials_ambiguous" in answer
    writer.close()


async def test_a_body_counts_though_its_client_asks_for_another_protocol(public: Public) -> None:
    """As Java's client does over plain HTTP."""
    wish = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
    sent = request(f"POST {SIGN} HTTP/1.1", JSON, *wish, f"Content-Length: {len(BODY)}", body=BODY)
    assert (await exchange(public.ingest.port, sent)).startswith(b"HTTP/1.1 202")


WHOLE: Final = (
    request(f"POST {SIGN} HTTP/1.1", JSON, f"Cookie: {CANARY}", f"Content-Length: {len(BODY)}", body=BODY),
    request(f"POST {SIGN} HTTP/1.1", JSON, "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    request(f"GET {STREAM[:-7]}?a=b HTTP/1.1", 'If-None-Match: W/"1-a"'),
    request(f"GET /p/{PETITION}%20 HTTP/1.1", "Accept: text/html", "Range: bytes=0-"),
    request(
        "GET /static/site.css?v=x HTTP/1.1", "If-Modified-Since: Sun, 22 Nov 2026 10:00:00 GMT", "Range: bytes=5-2"
    ),
    request("GET /metrics?name[]=x HTTP/1.1", "Accept: application/openmetrics-text", "Accept-Encoding: gzip"),
)


@repeatable(120)
@given(sent=st.sampled_from(WHOLE).flatmap(damaged))
async def test_damaged_requests_are_refused_or_answered_and_never_fail(sent: bytes, system: System) -> None:
    for port in (system.stack.services["ingest"][0].port, system.stack.services["tally"][0].port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()  # so that the server does not wait for the rest
        async with asyncio.timeout(30):
            try:
                answer = await reader.read(4096)
            except ConnectionError:
                answer = b""
        writer.close()
        assert not answer.startswith(b"HTTP/1.1 5")
        assert CANARY.encode() not in answer


async def test_none_of_that_was_taken_for_a_bug(system: System) -> None:
    for service in ("ingest", "tally"):
        log = system.stack.services[service][0].log_file.read_text()
        assert CANARY not in log
        assert "Exception in ASGI application" not in log


async def ended(reader: asyncio.StreamReader) -> float:
    """When the server ended the connection."""
    with contextlib.suppress(ConnectionError):  # that too is an end
        await reader.read()
    return time.monotonic()


async def test_slow_and_silent_clients_are_ended_in_time_and_others_are_served(public: Public) -> None:
    """Connections that never send, that drip a head, that stop in the middle of a body."""
    readers: dict[str, list[asyncio.StreamReader]] = {"head": [], "body": []}
    dripping: list[asyncio.StreamWriter] = []
    kept: list[asyncio.StreamWriter] = []  # one that is forgotten closes its connection
    started = time.monotonic()
    for process in (public.ingest, public.tally):
        for _ in range(50):
            silent, quiet = await asyncio.open_connection("127.0.0.1", process.port)
            kept.append(quiet)
            half, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a")
            dripping.append(writer)
            readers["head"] += [silent, half]
    for _ in range(50):
        body, writer = await asyncio.open_connection("127.0.0.1", public.ingest.port)
        writer.write(request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: 100", body=b"{"))
        kept.append(writer)
        readers["body"].append(body)

    async def drip() -> None:
        while True:
            for writer in dripping:
                if not writer.is_closing():
                    writer.write(b"a")
            await asyncio.sleep(0.1)

    drops = asyncio.create_task(drip())
    waiting = {
        kind: asyncio.gather(*(asyncio.create_task(ended(reader)) for reader in those))
        for kind, those in readers.items()
    }
    try:
        while not all(task.done() for task in waiting.values()):
            assert time.monotonic() - started < 30
            await public.serve_others()
            await asyncio.sleep(0.2)
    finally:
        drops.cancel()
    assert max(await waiting["head"]) - started < HEAD_SECONDS + 60
    # 10 seconds for the body (services.ingest.signing.intake), the answer 408, and the end that it announces.
    assert max(await waiting["body"]) - started < 10 + HEAD_SECONDS + 60
    assert await public.metric(public.ingest, 'groundswell_http_connections_cut_total{cause="head"}') >= 100
    for writer in (*kept, *dripping):
        writer.close()
    assert "Traceback" not in public.logs()


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(public: Public) -> None:
    answer = await exchange(
        public.ingest.port, request(f"POST {SIGN} HTTP/1.1", JSON, "Content-Length: 1000000000", "Expect: 100-continue")
    )
    assert answer.startswith(b"HTTP/1.1 413")  # for a body that does not come it would be 408


async def test_readers_of_streams_that_take_nothing_are_ended_and_cost_little_memory(
    public: Public, system: System
) -> None:
    """Half-open connections look the same to the server: what it sends is never read."""
    loop = asyncio.get_running_loop()
    memory = psutil.Process(public.tally.pid)
    watchers: list[socket.socket] = []
    for _ in range(200):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", public.tally.port))
        await loop.sock_sendall(client, request(f"GET {STREAM} HTTP/1.1"))
        watchers.append(client)

    async def all_watch() -> bool:
        return await public.metric(public.tally, "groundswell_tally_read_stream_subscribers") == len(watchers)

    await eventually(all_watch, "all watch", 30)
    before = memory.memory_info().rss
    started = time.monotonic()
    signers = range(0)

    async def all_ended() -> bool:
        """They stay connected and do not read; they miss only a few updates."""
        nonlocal signers
        signers = range(signers.stop, signers.stop + 20)
        await system.surge(PETITION, signers, name="Ann Watched")
        await public.serve_others()
        return await public.metric(public.tally, "groundswell_tally_read_stream_subscribers") == 0

    await eventually(all_ended, "those who take nothing are ended", 60)
    assert memory.memory_info().rss - before < 60 * 1024 * 1024, "0.3 MB each"
    assert await public.metric(public.tally, 'groundswell_http_connections_cut_total{cause="stalled"}') > 0
    for client in watchers:
        client.close()
    assert time.monotonic() - started < 60
    assert "Traceback" not in public.logs()


async def test_a_flood_of_connections_shuts_nobody_out(public: Public) -> None:
    for process, path in ((public.ingest, f"/v1/petitions/{PETITION}"), (public.tally, f"/p/{PETITION}")):
        flood = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(2 * CONNECTIONS)]
        async with httpx.AsyncClient(timeout=10) as newcomer:
            assert (await newcomer.get(process.url + path)).status_code == 200
        assert await public.metric(process, "groundswell_http_connections") <= CONNECTIONS
        assert await public.metric(process, 'groundswell_http_connections_cut_total{cause="crowded"}') > 0
        for _, writer in flood:
            writer.close()


async def test_what_hostile_clients_sent_was_counted_once_like_any_other(system: System) -> None:
    """After all of this the count equals the ledger's."""
    audited = await system.audited(PETITION)
    assert audited.right, json.dumps(str(audited))
