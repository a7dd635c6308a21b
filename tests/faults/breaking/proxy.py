"""A TCP proxy that can cut, stall, slow down and refuse connections. It runs in the harness's event loop.

Why not a library: those on PyPI that run inside Python (toxic-proxy, faulty) close both directions when one ends, delay by
blocking everything behind, and support neither reset nor stall; Toxiproxy itself is a server to be installed.

Bytes pass unchanged and in order. The end of one direction (FIN) is passed on after all bytes before it, and the other
direction goes on. A reset is passed on as a reset. A reader that is slow slows the writer down, as without a proxy.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from deploy.local.parts.ports import LOOPBACK, free_port

_WINDOW = 1024 * 1024
"""Bytes in flight per direction while it is slow; beyond, the sender waits, as with a TCP window."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time to linger: close sends RST instead of FIN


class Proxy:
    """Accepts connections on `port` of loopback and forwards them to the target.

    Args:
        name: The part behind it, for reports.
        target_host: Where connections go.
        target_port: The same; if it is down, connections are reset as soon as they are accepted.

    Attributes:
        port: Where it listens; it stays the same, and stays reserved while new connections are refused.
        taken: How many connections were accepted so far.
    """

    def __init__(self, name: str, target_host: str, target_port: int) -> None:
        self.name = name
        self.port = free_port()
        self.taken = 0
        self._target = (target_host, target_port)
        self._latency = 0.0
        self._stalled = False
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()
        self._joining: set[asyncio.Task[None]] = set()
        self._bugs: list[BaseException] = []

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    async def start(self) -> None:
        """Listen."""
        self._reserve()
        self._listen()

    async def stop(self) -> None:
        """Refuse new connections and reset those that are open.

        Raises:
            ExceptionGroup: connections ended by a bug of the proxy.
        """
        self._close_listener()
        self.cut()
        for joining in self._joining:
            joining.cancel()
        await asyncio.gather(*self._joining, return_exceptions=True)  # failures are kept by `_joined`
        await asyncio.sleep(0)  # transports close in the next turn of the loop
        if self._bugs:
            raise BaseExceptionGroup(f"proxy {self.name}", self._bugs)

    def cut(self) -> int:
        """Reset all connections now; new ones are accepted. Returns how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections and reset the old ones."""
        self._close_listener()
        self._reserve()
        self.cut()
        try:
            yield
        finally:
            self._listen()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let nothing pass. Connections stay and new ones are accepted; data sent meanwhile arrives afterwards."""
        before, self._stalled = self._stalled, True
        self._changed()
        try:
            yield
        finally:
            self._stalled = before
            self._changed()

    @contextmanager
    def slow(self, latency: float) -> Iterator[None]:
        """Deliver everything `latency` seconds late, each way; order and throughput stay (up to 1 MiB in flight)."""
        before, self._latency = self._latency, latency
        try:
            yield
        finally:
            self._latency = before

    # -------------------------------------------------------------------------------------------------- taking them

    def _reserve(self) -> None:
        """Hold the port without listening: connections are refused, and no other process can take it."""
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        self._listener.bind((LOOPBACK, self.port))

    def _listen(self) -> None:
        if self._listener is None:  # stopped while it refused
            return
        self._listener.listen(128)
        asyncio.get_running_loop().add_reader(self._listener, self._take)

    def _close_listener(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _take(self) -> None:
        """Accept waiting connections. Not by `loop.create_server`: its start is a coroutine, and `refusing` must end at once."""
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue  # the client has closed it already
            client.setblocking(False)
            self.taken += 1
            joining = asyncio.create_task(self._join(client), name=f"proxy-{self.name}")
            self._joining.add(joining)
            joining.add_done_callback(self._joined)

    async def _join(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        link = _Link(self)
        self._links.add(link)
        try:
            await loop.connect_accepted_socket(lambda: link.client, client)
            if not link.ended:
                await loop.create_connection(lambda: link.target, *self._target)
        except OSError:
            link.reset()  # the target is down, or the client has disconnected
        except BaseException:
            link.reset()
            raise
        finally:
            if link.client.transport is None:
                client.close()

    def _joined(self, joining: asyncio.Task[None]) -> None:
        self._joining.discard(joining)
        if not joining.cancelled() and (error := joining.exception()) is not None:
            self._bugs.append(error)

    # ----------------------------------------------------------------------------------------------- what links ask

    @property
    def latency(self) -> float:
        """The current latency in seconds."""
        return self._latency

    @property
    def is_stalled(self) -> bool:
        """Whether nothing may pass."""
        return self._stalled

    def forget(self, link: _Link) -> None:
        """A connection has ended."""
        self._links.discard(link)

    def _changed(self) -> None:
        for link in list(self._links):
            link.client.out.pump()
            link.target.out.pump()


class _Link:
    """A client's connection and the one to the target."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.ended = False
        self.client, self.target = _End(self), _End(self)
        self.client.out = _Flow(self, source=self.target, sink=self.client)
        self.target.out = _Flow(self, source=self.client, sink=self.target)

    def reset(self) -> None:
        """End both connections with a reset; data in flight is lost."""
        if not self.ended:
            self._end()
            self.client.abort()
            self.target.abort()

    def close_if_done(self) -> None:
        """End both connections once both directions have ended."""
        if not self.ended and self.client.out.done and self.target.out.done:
            self._end()
            self.client.close()
            self.target.close()

    def _end(self) -> None:
        self.ended = True
        self.client.out.drop()
        self.target.out.drop()
        self.proxy.forget(self)


class _End(asyncio.Protocol):
    """One of the two connections of a link. `out` carries what leaves through it."""

    out: _Flow

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.is_full = False
        self._is_reading = True
        self._is_finished = False  # its peer has sent FIN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # no isinstance: uvloop's is none, and does the same
        if self._link.ended:
            self.abort()
        else:
            self.out.pump()
            self._other.out.pump()  # stalled: reading must pause at once

    def data_received(self, data: bytes) -> None:
        self._other.out.carry(data)

    def eof_received(self) -> bool:
        self._is_finished = True
        self._other.out.carry(None)
        return True  # keeps it open for the other direction

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.reset()

    def pause_writing(self) -> None:
        self.is_full = True
        self.out.pump()

    def resume_writing(self) -> None:
        self.is_full = False
        self.out.pump()

    def read_only_if(self, wanted: bool) -> None:
        """Read from the peer, or leave its data in the kernel's buffers so that it has to wait."""
        if self.transport is None or self._is_finished or wanted is self._is_reading:
            return  # after FIN there is nothing to read; asyncio would report the FIN again
        self._is_reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def abort(self) -> None:
        """Reset this connection."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    def close(self) -> None:
        """Close this connection after what was written to it."""
        if self.transport is not None:
            self.transport.close()

    @property
    def _other(self) -> _End:
        return self._link.target if self is self._link.client else self._link.client


class _Flow:
    """One direction of a link."""

    def __init__(self, link: _Link, *, source: _End, sink: _End) -> None:
        self.done = False
        self._link, self._source, self._sink = link, source, sink
        self._on_its_way: deque[tuple[float, bytes | None]] = deque()  # (due time, data); None is the FIN
        self._bytes = 0
        self._wake: asyncio.TimerHandle | None = None

    def carry(self, data: bytes | None) -> None:
        """Deliver `data`, or a FIN, when it is due."""
        due = asyncio.get_running_loop().time() + self._link.proxy.latency
        if self._on_its_way:
            due = max(due, self._on_its_way[-1][0])  # when the latency falls, order is kept
        self._on_its_way.append((due, data))
        self._bytes += len(data or b"")
        self.pump()

    def pump(self) -> None:
        """Deliver due data, and read from the source only while there is room."""
        if self._link.ended:
            return
        now = asyncio.get_running_loop().time()
        while self._on_its_way and self._may_pass():
            due, data = self._on_its_way[0]
            if due > now:
                self._wake_at(due)
                break
            self._on_its_way.popleft()
            self._deliver(data)
        self._source.read_only_if(not self._link.proxy.is_stalled and not self._sink.is_full and self._bytes < _WINDOW)

    def drop(self) -> None:
        """Deliver nothing more."""
        self._on_its_way.clear()
        if self._wake is not None:
            self._wake.cancel()

    def _may_pass(self) -> bool:
        return self._sink.transport is not None and not self._sink.is_full and not self._link.proxy.is_stalled

    def _deliver(self, data: bytes | None) -> None:
        assert self._sink.transport is not None
        if data is not None:
            self._bytes -= len(data)
            self._sink.transport.write(data)
            return
        self.done = True
        try:
            self._sink.transport.write_eof()
        except OSError:
            self._link.reset()  # the sink had closed its own direction, was no longer read, and has reset since
        else:
            self._link.close_if_done()

    def _wake_at(self, due: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = asyncio.get_running_loop().call_at(due, self.pump)
