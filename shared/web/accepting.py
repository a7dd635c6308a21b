"""A server that accepts new connections while it is busy.

libuv, on which uvloop is built, accepts one connection per iteration of its loop (libuv pull request 3696, since 1.46). An
idle loop accepts the next one a moment later; but when thousands of clients send requests, an iteration serves them all and
takes a tenth of a second. In the benchmark `overload`, clients waited a minute to be accepted and were then refused with
Retry-After. Here every iteration accepts all waiting connections.

Measured 2026-11-30, five interleaved rounds: 200 new connections beside 1,500 busy ones all had an answer after 2.6 to 11.3
seconds; with uvicorn's own server none had one after 40 in four of the rounds. tests/unit/shared/web/test_accepting.py runs
both.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import uvicorn

_AT_ONCE: Final = 256
"""Maximum connections accepted per iteration, so that those accepted before are served too."""


class PromptServer(uvicorn.Server):
    """uvicorn's server with a `Doorkeeper` at every socket that it listens on."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._doorkeepers: list[Doorkeeper] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; see `uvicorn.Server.startup`."""
        await super().startup(sockets)
        for server in self.servers:
            self._doorkeepers += [Doorkeeper(listening.fileno(), self._protocol) for listening in server.sockets]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and finish running requests; see `uvicorn.Server.shutdown`."""
        for doorkeeper in self._doorkeepers:
            doorkeeper.close()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """Create the protocol of a connection, as uvicorn does."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself does
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


class Doorkeeper:
    """Accepts all connections that wait at a listening socket, in addition to the event loop's own server.

    The loop's server comes first in every iteration, so at low traffic nothing is left to accept here.

    Args:
        listening: File descriptor of the socket, which is non-blocking.
        protocol: Creates the protocol of a connection.
    """

    def __init__(self, listening: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(fileno=os.dup(listening))  # a duplicate, because the loop watches the original
        self._socket.setblocking(False)
        self._entering: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._socket, self._let_in)

    def close(self) -> None:
        """Stop accepting connections."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _let_in(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                newcomer, _address = self._socket.accept()
            except OSError:  # none is left, or a client has gone; the loop's server reports persistent errors
                return
            entering = self._loop.create_task(self._serve(newcomer))
            self._entering.add(entering)  # the loop itself keeps no task
            entering.add_done_callback(self._entering.discard)

    async def _serve(self, newcomer: socket.socket) -> None:
        newcomer.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, newcomer)
        except OSError:  # the client has gone
            newcomer.close()
