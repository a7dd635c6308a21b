"""A server that lets newcomers in while it is busy.

libuv, which uvloop is built on, takes one new connection per turn of its loop (libuv pull request 3696, since 1.46). Left
alone it takes the next one a moment later; but where thousands of clients ask at once, a turn serves them all and lasts a
tenth of a second. The benchmark `overload` found clients that had waited a minute to be let in, only to be told to come
again. Here whoever waits at the door is let in at every turn.

Measured 2026-11-30, five rounds in turns: 200 newcomers beside 1,500 busy connections all had an answer after 2.6 to 11.3
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
"""Most newcomers of a turn: those who were let in before them want to be served too."""


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
        """Stop listening, and finish what is in work; see `uvicorn.Server.shutdown`."""
        for doorkeeper in self._doorkeepers:
            doorkeeper.close()
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for each connection."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself does
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


class Doorkeeper:
    """Lets in all who wait at a listening socket, beside the event loop's own server.

    The loop's server comes first in every turn, so where one client arrives at a time there is nothing left to do here.

    Args:
        listening: File descriptor of the socket, which does not block.
        protocol: Makes the protocol of a connection.
    """

    def __init__(self, listening: int, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(fileno=os.dup(listening))  # the loop watches its own one
        self._socket.setblocking(False)
        self._entering: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._socket, self._let_in)

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _let_in(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                newcomer, _address = self._socket.accept()
            except OSError:  # nobody is left, or one has gone again; what keeps coming up, the loop's server reports
                return
            entering = self._loop.create_task(self._serve(newcomer))
            self._entering.add(entering)  # the loop itself keeps no task
            entering.add_done_callback(self._entering.discard)

    async def _serve(self, newcomer: socket.socket) -> None:
        newcomer.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, newcomer)
        except OSError:  # it has gone meanwhile
            newcomer.close()
