"""Connections of clients that are slow, silent, too talkative, or gone: each is ended within a known time.

uvicorn ends a connection only when it has been silent between two requests (5 seconds). Everything else may last as long
as the client likes: a request whose head never ends, a body that nobody reads any more, an answer that nobody takes. Here
every such state has an end:

==========================================================  ===============================================
a client that …                                             is cut off
==========================================================  ===============================================
has not sent a whole request head                           `head_seconds` after connecting or the last answer
sends on, after its request was answered                    the same
sends a head of more than 32 KiB or 100 fields, more than   at once
16 requests without waiting for answers, 8 MiB in one
takes nothing of what it was sent, or has vanished          after `stall_seconds`
takes a full buffer (64 KiB) too slowly                     after `stall_seconds` × 2
takes what was left when the connection closed too slowly   after 5 seconds
is one connection too many                                  at once: the one that has sent no request for longest
==========================================================  ===============================================

The last rule keeps a flood of idle connections from shutting others out: whoever sends a request at once gets through.
How long a request's *body* may take is its endpoint's to say.

Requests that can be read in two ways are answered with 400 here, for all services (`shared.web.malformed`).
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
"""Most bytes of a request's head. Browsers send 2 KB, and up to 16 KB where a domain has many cookies."""
HEAD_FIELDS: Final = 100
"""Most header fields; each costs 20 times its bytes while it is short."""
REQUEST_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of a whole request, also of one that was refused: the largest body that any call takes is half of that."""
PIPELINED: Final = 16
"""Most requests sent ahead. Browsers send none; a queue of thousands fits into one read."""
LINGER_SECONDS: Final = 5.0
"""How long a closed connection may take to hand over what is still in its buffer."""
SWEEP_SECONDS: Final = 0.5

_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class TooMuch(Exception):
    """A request that no server has to take. It is answered with 400, and the connection is closed."""


class NoProxy(Exception):
    """CONNECT, which asks for a connection to somewhere else."""


class Connections:
    """Watches over all connections of one server.

    Args:
        most: Connections at once.
        head_seconds: For a request's head to arrive.
        stall_seconds: For an answer to be taken, in part at least.
        registry: Where the metrics go.
    """

    def __init__(
        self, *, most: int, head_seconds: float, stall_seconds: float, registry: CollectorRegistry | None = None
    ) -> None:
        self._most, self._head_seconds, self._stall_seconds = most, head_seconds, stall_seconds
        self._all: set[GuardedProtocol] = set()
        # Those that have sent no whole request since they connected or were answered, longest first.
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
        """For an answer to be taken, in part at least."""
        return self._stall_seconds

    def protocol(self) -> type[asyncio.Protocol]:
        """The protocol to give to `uvicorn.Config(http=...)`."""
        return type("WatchedProtocol", (GuardedProtocol,), {"watch": self})

    async def sweep(self) -> None:
        """Cut off what is overdue, again and again. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._sweep_once(asyncio.get_running_loop().time())

    def _sweep_once(self, now: float) -> None:
        overdue = []
        for connection, since in self._waiting.items():
            if now - since < self._head_seconds:
                break  # they stand in the order in which they began to wait
            overdue.append(connection)
        for connection in overdue:
            self.cut(connection, "head")
        for connection in list(self._all):
            if connection.overdue(SWEEP_SECONDS, self._stall_seconds):
                self.cut(connection, "stalled")

    def cut(self, connection: GuardedProtocol, cause: str) -> None:
        """End a connection without a word: what its client did not take so far is dropped."""
        self._cut.labels(cause=cause).inc()
        self.left(connection)
        connection.transport.abort()

    def arrived(self, connection: GuardedProtocol) -> None:
        """A client has connected. Makes room for it if there is none."""
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
        """A request is refused for one of `shared.web.malformed.CAUSES`."""
        self._malformed.labels(cause=cause).inc()

    def waits(self, connection: GuardedProtocol) -> None:
        """A connection has no request in work: the time for its next head runs."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = connection.loop.time()

    def works(self, connection: GuardedProtocol) -> None:
        """A request's head is complete."""
        self._waiting.pop(connection, None)

    def stalled(self) -> None:
        """The system has ended a connection whose client took nothing."""
        self._cut.labels(cause="stalled").inc()

    def left(self, connection: GuardedProtocol) -> None:
        """A connection is gone."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with `Connections` looking on. The methods it adds to are callbacks of transport and parser."""

    watch: ClassVar[Connections]

    # Bytes of the block that is being read, and of all blocks since the one in which the request began. A block may hold
    # the end of one request and the beginning of another.
    _block = 0
    _received = 0
    _in_head = False
    # Nothing that comes can be parsed any more; a request was refused, whose answer ends the connection.
    _unreadable = False
    _refused = False
    # For how many seconds, counted by the sweeps: the buffer has been full without a pause; the connection is closing.
    _full_for = 0.0
    _closing_for = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        # The system knows best what a client has taken: it also sees one that vanished, or that leaves a little untaken.
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
            # `headers` are those of a head that is not whole yet, or what comes after the body (trailers).
            endless = self._in_head or self._received > REQUEST_BYTES or len(self.headers or ()) > HEAD_FIELDS
            if endless:
                self.watch.cut(self, "too_much")

    def _end_of_first_line(self) -> None:
        """A request of HTTP/0.9 ends here, and its client waits; to the parser the line is one of a later version."""
        ended = self._unreadable or self._refused
        if self.url and not ended and self.parser.get_http_version() in ("0.0", "0.9"):
            self._cannot_read("version")

    def _read(self, data: bytes) -> None:
        """Parse, as uvicorn's `data_received` does, but without a line in the log for whatever anyone sends."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # The parser says it again of everything that comes later.
            if not (self._unreadable or self._refused):
                self._cannot_read("too_much" if isinstance(error.__context__, TooMuch) else "unreadable")

    def _cannot_read(self, cause: str) -> None:
        """What came is no request, or not the rest of one. Nothing on this connection can be understood any more.

        The requests before it keep their answers, unless they were too many: a 400 that overtook them would be taken for
        the first one's.
        """
        self._unreadable = True
        self.watch.malformed(cause)
        cycle = self.cycle
        if cycle is None or (self._in_head and cycle.response_complete):
            self.send_400_response(CAUSES[cause])
        elif cause == "too_much":
            self.watch.cut(self, cause)
        elif self._in_head:
            cycle.keep_alive = False  # the connection ends with the last answer
        elif cycle.response_started or self.pipeline:  # the body of a request that is answered, or will be much later
            self.transport.close()
        else:
            self.send_400_response(CAUSES[cause])

    def _should_upgrade(self) -> bool:
        """That uvicorn leaves the request to `_ignore_upgrade`. Only asked where a client wants another protocol."""
        if self.parser.get_method() == b"CONNECT":
            raise NoProxy
        return True

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request whose client would rather speak another protocol (RFC 9110 section 7.8): Java's client asks for
        HTTP/2 in this way. The parser takes everything after such a head for that protocol, the body too, so a new one
        reads the head again, without the wish."""
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
            self.app = self.watch.refusals["target"]  # its answer ends the connection: it is the last request
        super().on_headers_complete()
        if self.expect_100_continue and self.scope["http_version"] == "1.0":
            self.cycle.waiting_for_100_continue = False  # such a client knows no interim answers (RFC 9110 10.1.1)
        self.headers = []  # trailers are not what a proxy has checked: they do not become fields (RFC 9110 section 6.5.1)
        self._in_head = False
        self.watch.works(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Here every request comes by, in its turn: a refusal does not overtake the answers before it.
        scope: Any = cycle.scope
        cause = "target" if app is self.watch.refusals["target"] else cause_to_refuse(scope)
        if cause is not None:
            self._refused, app = True, self.watch.refusals[cause]
            self.watch.malformed(cause)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request, sent ahead, is in work
            self.watch.waits(self)

    def pause_writing(self) -> None:
        self._full_for = 0.0  # it had room a moment ago
        super().pause_writing()

    def overdue(self, seconds: float, stall_seconds: float) -> bool:
        """Whether the client takes nothing of what it was sent, `seconds` after the last look."""
        self._full_for = self._full_for + seconds if self.flow.write_paused else 0.0
        self._closing_for = self._closing_for + seconds if self.transport.is_closing() else 0.0
        return self._full_for > 2 * stall_seconds or self._closing_for > LINGER_SECONDS


def _size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) for name, value in headers)


def raise_open_files(wanted: int) -> None:
    """Let this process have `wanted` connections open, as far as the system's hard limit allows: every connection is an
    open file, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    target = wanted if hard == unlimited else min(wanted, hard)
    if soft != unlimited and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    if target < wanted:
        log.warning("few_open_files", allowed=target, wanted=wanted)


def uvicorn_options(connections: Connections) -> dict[str, Any]:
    """What `uvicorn.Config` must be told so that `connections` watches its server."""
    return {
        "http": connections.protocol(),
        "ws": "none",  # nothing here speaks WebSocket
        # Who is whose proxy is ingest's setting; uvicorn would believe everyone on this machine.
        "proxy_headers": False,
    }
