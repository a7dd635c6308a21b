"""A lean HTTP/1.1 client for the load: one keep-alive connection per worker, one request at a time on it.

The demo shares two cores with the system that it drives. httpx takes about a millisecond per request, ten times as long as
ingest takes to answer it; this client takes some 40 µs, most of it in the socket.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

_ANSWER_SECONDS = 60.0
"""Longer than ingest ever takes for a request: a later answer never comes."""


class ConnectionLost(ConnectionError):
    """The connection ended before the answer; the request may have been carried out."""


@dataclass(slots=True)
class Answer:
    """The server's answer."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)

    @property
    def retry_after(self) -> float:
        """Seconds of Retry-After; one if there is none."""
        text = self.headers.get(b"retry-after", b"")
        return float(text) if text.isdigit() else 1.0


class Connection:
    """One connection to one server; it connects when first used, and again after it was lost."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"the load goes to http://host:port, not {url}")
        self._host, self._port = parts.hostname, parts.port
        self._protocol: _Protocol | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST and wait for the whole answer.

        Raises:
            ConnectionLost: no answer; nobody knows whether the request was carried out.
            OSError: nobody listens there.
        """
        return await self._ask(f"POST {path}", {**headers, "Content-Length": str(len(body))}, body)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET and wait for the whole answer.

        Raises:
            ConnectionLost: no answer.
            OSError: nobody listens there.
        """
        return await self._ask(f"GET {path}", headers or {}, b"")

    async def _ask(self, what: str, headers: Mapping[str, str], body: bytes) -> Answer:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{what} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{lines}\r\n"
        protocol = await self._connected()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await protocol.ask(head.encode() + body)
        except TimeoutError:
            self.close()
            raise ConnectionLost(f"no answer to {what} within {_ANSWER_SECONDS:.0f} s") from None
        except asyncio.CancelledError:
            self.close()  # the answer may still come, and would be taken for that of the next request
            raise

    def close(self) -> None:
        """Close the connection if it is open."""
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None

    async def _connected(self) -> _Protocol:
        if self._protocol is None or self._protocol.lost:
            loop = asyncio.get_running_loop()
            _, self._protocol = await loop.create_connection(_Protocol, self._host, self._port)
        return self._protocol


class _Protocol(asyncio.Protocol):
    """The transport's side of a connection; the `on_...` methods are called by the parser."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer = Answer()
        self._waiting: asyncio.Future[Answer] | None = None

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future gets its answer."""
        if self._transport is None or self.lost:
            raise ConnectionLost("the connection is closed")
        self._answer = Answer()
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        """Close; a request that still waits fails."""
        if self._transport is not None:
            self._transport.close()
        self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionLost(f"the server closed the connection: {exc!r}"))

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._parser is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_status(self, _: bytes) -> None:
        """The status line is complete."""
        self._answer.status = self._parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is complete."""
        self._answer.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._answer.body += body

    def on_message_complete(self) -> None:
        """The answer is complete."""
        if not self._parser.should_keep_alive():
            self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._answer)
