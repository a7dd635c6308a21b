"""Limits of connections whose clients are slow, silent, gone, or send too much: each is closed within a known time.

uvicorn closes a connection only if it is idle between two requests (5 seconds). Everything else may last as long as the
client likes: a request head that never ends, a body that is no longer read, an answer that the client does not read. Here
every such state has a limit:

==========================================================  ===============================================
a client that …                                             is disconnected
==========================================================  ===============================================
has not sent a complete request head                        `head_seconds` after connecting or the last answer
goes on sending after its request was answered              the same
sends a head of more than 32 KiB or 100 fields, more than   at once
16 pipelined requests, or a request of more than 8 MiB
reads nothing of what it was sent, or has vanished          after `stall_seconds`
reads a full buffer (64 KiB) too slowly                     after `stall_seconds` × 2
reads the rest of a closing connection too slowly           after 5 seconds
connects when the maximum is reached                        at once: the longest without a complete request
==========================================================  ===============================================

The last rule prevents a flood of idle connections from locking out other clients: one that sends a request at once is
served. The time limit of a request's *body* is set by its endpoint.

Ambiguous requests are answered with 400 here, for all services (`shared.web.malformed`).
"""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import Any, ClassVar, Final

import httptools
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.web.malformed import CAUSES, cause_to_refuse, is_ambiguous, refusal
from shared.web.problem_answers import answer_to

log = structlog.get_logger(__name__)

HEAD_BYTES: Final = 32 * 1024
"""Maximum bytes of a request's head. Browsers send 2 KB, and up to 16 KB if a domain has many cookies."""
HEAD_FIELDS: Final = 100
"""Maximum number of header fields; a short field costs 20 times its size."""
REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Maximum bytes of a whole request, also of a refused one: twice the largest body that any endpoint accepts."""
PIPELINED: Final = 16
"""Maximum number of pipelined requests. Browsers do not pipeline; a single read can hold thousands of requests."""
LINGER_SECONDS: Final = 5.0
"""How long a closing connection may take to send what is left in its buffer."""
SWEEP_SECONDS: Final = 0.5

_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class TooMuch(Exception):
    """A request exceeds a limit. It is answered with 400, and the connection is closed."""


class NoProxy(Exception):
    """A client sent CONNECT, which asks for a tunnel to another host."""


class Connections:
    """Tracks all connections of one server and enforces their limits.

    Args:
        most: Maximum number of open connections.
        head_seconds: Time for a request's head to arrive.
        stall_seconds: Time for a client to read at least a part of an answer.
        registry: The registry of the metrics.
    """

    def __init__(
        self, *, most: int, head_seconds: float, stall_seconds: float, registry: CollectorRegistry | None = None
    ) -> None:
        self._most, self._head_seconds, self._stall_seconds = most, head_seconds, stall_seconds
        self._all: set[GuardedProtocol] = set()
        # Connections without a complete request since they connected or were answered, longest first.
        self._waiting: dict[GuardedProtocol, float] = {}
        self._cut = Counter(
            "groundswell_http_connections_cut",
            "HTTP connections closed because of their client's behaviour, by cause",
            ["cause"],
            registry=registry,
        )
        for cause in ("head", "too_much", "stalled", "crowded"):
            self._cut.labels(cause=cause)
        self._malformed = Counter(
            "groundswell_http_requests_malformed",
            "HTTP requests refused because they are malformed or ambiguous, by cause (shared/web/malformed.py)",
            ["cause"],
            registry=registry,
        )
        self.refusals: dict[str, ASGIApp] = {cause: answer_to(refusal(cause)) for cause in CAUSES}
        for cause in CAUSES:
            self._malformed.labels(cause=cause)
        Gauge("groundswell_http_connections", "Open HTTP connections", registry=registry).set_function(
            lambda: len(self._all)
        )

    @property
    def stall_seconds(self) -> float:
        """Time for a client to read at least a part of an answer."""
        return self._stall_seconds

    def protocol(self) -> type[asyncio.Protocol]:
        """Return the protocol for `uvicorn.Config(http=...)`."""
        return type("WatchedProtocol", (GuardedProtocol,), {"watch": self})

    async def sweep(self) -> None:
        """Periodically close overdue connections. Runs until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._sweep_once(asyncio.get_running_loop().time())

    def _sweep_once(self, now: float) -> None:
        overdue = []
        for connection, since in self._waiting.items():
            if now - since < self._head_seconds:
                break  # the dictionary is ordered by the start of the wait
            overdue.append(connection)
        for connection in overdue:
            self.cut(connection, "head")
        for connection in list(self._all):
            if connection.overdue(SWEEP_SECONDS, self._stall_seconds):
                self.cut(connection, "stalled")

    def cut(self, connection: GuardedProtocol, cause: str) -> None:
        """Abort a connection without an answer; unsent data is dropped."""
        self._cut.labels(cause=cause).inc()
        self.left(connection)
        connection.transport.abort()

    def arrived(self, connection: GuardedProtocol) -> None:
        """Add a new connection, and close another one if the maximum is reached."""
        if len(self._all) >= self._most and not self._make_room():
            self._cut.labels(cause="crowded").inc()
            connection.transport.write(_BUSY)
            connection.transport.close()
        self._all.add(connection)
        self.waits(connection)

    def _make_room(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self.cut(oldest, "crowded")
        return oldest is not None

    def malformed(self, cause: str) -> None:
        """Count a request that is refused for one of `shared.web.malformed.CAUSES`."""
        self._malformed.labels(cause=cause).inc()

    def waits(self, connection: GuardedProtocol) -> None:
        """Note that a connection has no running request: the time limit of its next head starts."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = connection.loop.time()

    def works(self, connection: GuardedProtocol) -> None:
        """Note that a request's head is complete."""
        self._waiting.pop(connection, None)

    def stalled(self) -> None:
        """Count a connection that the operating system closed because its client read nothing."""
        self._cut.labels(cause="stalled").inc()

    def left(self, connection: GuardedProtocol) -> None:
        """Remove a closed connection."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, tracked by `Connections`. It extends callbacks of the transport and the parser."""

    watch: ClassVar[Connections]

    # Bytes of the block that is being read, and of all blocks since the one in which the request began. A block may hold
    # the end of one request and the start of the next.
    _block = 0
    _received = 0
    _in_head = False
    # Further input cannot be parsed; a request was refused, and its answer closes the connection.
    _unreadable = False
    _refused = False
    # Seconds, counted by sweeps: how long the buffer has been full without a break; how long the connection is closing.
    _full_for = 0.0
    _closing_for = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        # The kernel knows what a client has acknowledged: it also detects one that vanished or leaves a small rest unread.
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family != socket.AF_UNIX:
            milliseconds = int(self.watch.stall_seconds * 1000)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self.watch.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.left(self)
        if isinstance(exc, TimeoutError):
            self.watch.stalled()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._block = len(data)
        self._received += self._block
        self._unset_keepalive_if_required()
        self._read(data)
        if self._in_head and data[-1:] == b"\n" and not self.headers:
            self._end_of_first_line()
        if self._received > HEAD_BYTES and not self.transport.is_closing():
            # `headers` are those of an incomplete head, or the trailers after the body.
            endless = self._in_head or self._received > REQUEST_BYTES or len(self.headers or ()) > HEAD_FIELDS
            if endless:
                self.watch.cut(self, "too_much")

    def _end_of_first_line(self) -> None:
        """Refuse HTTP/0.9: such a request ends here and its client waits, but the parser expects the rest of a head."""
        ended = self._unreadable or self._refused
        if self.url and not ended and self.parser.get_http_version() in ("0.0", "0.9"):
            self._cannot_read("version")

    def _read(self, data: bytes) -> None:
        """Parse as uvicorn's `data_received` does, but without logging malformed input."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # The parser repeats the error for all later input.
            if not (self._unreadable or self._refused):
                self._cannot_read("too_much" if isinstance(error.__context__, TooMuch) else "unreadable")

    def _cannot_read(self, cause: str) -> None:
        """Refuse input that is not a request, or not the rest of one. Nothing more can be parsed on this connection.

        Earlier requests still get their answers, unless there are too many: a 400 sent before them would be taken for the
        answer to the first one.
        """
        self._unreadable = True
        self.watch.malformed(cause)
        cycle = self.cycle
        if cycle is None or (self._in_head and cycle.response_complete):
            self.send_400_response(CAUSES[cause])
        elif cause == "too_much":
            self.watch.cut(self, cause)
        elif self._in_head:
            cycle.keep_alive = False  # the last answer closes the connection
        elif cycle.response_started or self.pipeline:  # in the body of a request that is answered already or much later
            self.transport.close()
        else:
            self.send_400_response(CAUSES[cause])

    def _should_upgrade(self) -> bool:
        """Make uvicorn leave the request to `_ignore_upgrade`. Called only for requests to upgrade the protocol."""
        if self.parser.get_method() == b"CONNECT":
            raise NoProxy
        return True

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request with an Upgrade field as HTTP/1.1 (RFC 9110 section 7.8): Java's client asks for HTTP/2 in this
        way. The parser takes everything after such a head, the body too, for the other protocol, so a new parser reads the
        head again without that field."""
        method, version, fields = self.parser.get_method(), self.parser.get_http_version(), self.scope["headers"]
        head = [b"%s %s HTTP/%s\r\n" % (method, self.url, version.encode())]
        head += [b"%s: %s\r\n" % field for field in fields if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._read(b"".join((*head, b"\r\n", rest)))

    def on_message_begin(self) -> None:
        self._in_head, self._received = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEAD_FIELDS or len(self.pipeline) >= PIPELINED:
            raise TooMuch
        if self._received + self._block > HEAD_BYTES and _size(self.url, self.headers) > HEAD_BYTES:
            raise TooMuch
        if is_ambiguous(self.url):
            self.app = self.watch.refusals["target"]  # its answer closes the connection, so this is the last request
        super().on_headers_complete()
        if self.expect_100_continue and self.scope["http_version"] == "1.0":
            self.cycle.waiting_for_100_continue = False  # HTTP/1.0 has no interim responses (RFC 9110 10.1.1)
        self.headers = []  # a proxy has not checked trailers: they must not become fields (RFC 9110 section 6.5.1)
        self._in_head = False
        self.watch.works(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Every request passes here in order, so a refusal does not overtake earlier answers.
        scope: Any = cycle.scope
        cause = "target" if app is self.watch.refusals["target"] else cause_to_refuse(scope)
        if cause is not None:
            self._refused, app = True, self.watch.refusals[cause]
            self.watch.malformed(cause)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # otherwise the next pipelined request is running
            self.watch.waits(self)

    def pause_writing(self) -> None:
        self._full_for = 0.0  # the buffer was not full until now
        super().pause_writing()

    def overdue(self, seconds: float, stall_seconds: float) -> bool:
        """Return whether the client reads too slowly; `seconds` is the time since the last call."""
        self._full_for = self._full_for + seconds if self.flow.write_paused else 0.0
        self._closing_for = self._closing_for + seconds if self.transport.is_closing() else 0.0
        return self._full_for > 2 * stall_seconds or self._closing_for > LINGER_SECONDS


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)


def raise_open_files(wanted: int) -> None:
    """Raise the soft limit of open files to `wanted`, as far as the hard limit allows: every connection is an open file,
    and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    target = wanted if hard == unlimited else min(wanted, hard)
    if soft != unlimited and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    if target < wanted:
        log.warning("few_open_files", allowed=target, wanted=wanted)


def uvicorn_options(connections: Connections) -> dict[str, Any]:
    """Return the options of `uvicorn.Config` with which `connections` tracks its server."""
    return {
        "http": connections.protocol(),
        "ws": "none",  # no service uses WebSocket
        # ingest has a setting for trusted proxies; uvicorn would trust every process on this machine.
        "proxy_headers": False,
    }
