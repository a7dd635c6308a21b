"""Who waits to be let in while the event loop is busy."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn
import uvloop

from shared.web.accepting import PromptServer

CLIENTS = 200


async def answer(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def started(kind: type[uvicorn.Server]) -> uvicorn.Server:
    config = uvicorn.Config(answer, port=0, lifespan="off", http="httptools", log_config=None, backlog=4096)
    config.load()
    server = kind(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    return server


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


async def turns_until_all_are_in(server: uvicorn.Server) -> int:
    """How often the event loop turns until clients that wait at the door are connected."""
    clients = [socket.create_connection(("127.0.0.1", port_of(server))) for _ in range(CLIENTS)]
    try:
        turns = 0
        while len(server.server_state.connections) < CLIENTS:
            await asyncio.sleep(0)
            turns += 1
        for client in clients:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        for client in clients:
            assert (await asyncio.get_running_loop().sock_recv(client, 4096)).startswith(b"HTTP/1.1 200")
        for connection in server.server_state.connections:
            connected = connection.transport.get_extra_info("socket")  # type: ignore[union-attr]  # uvicorn's own
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        return turns
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize(("kind", "prompt"), [(uvicorn.Server, False), (PromptServer, True)])
def test_a_crowd_is_let_in_at_once_and_not_one_client_a_turn(kind: type[uvicorn.Server], prompt: bool) -> None:
    async def measured() -> int:
        server = await started(kind)
        try:
            return await turns_until_all_are_in(server)
        finally:
            await server.shutdown()

    turns = uvloop.run(measured())
    assert (turns < CLIENTS / 10) == prompt, turns


def test_nobody_is_let_in_once_the_server_stops() -> None:
    async def refused() -> bool:
        server = await started(PromptServer)
        port = port_of(server)
        socket.create_connection(("127.0.0.1", port)).close()
        await server.shutdown()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        return False

    assert uvloop.run(refused())


def test_clients_that_have_gone_again_and_a_closed_door_are_no_trouble() -> None:
    async def served() -> bytes:
        server = await started(PromptServer)
        for _ in range(20):
            gone = socket.create_connection(("127.0.0.1", port_of(server)))
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a farewell
            gone.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        head = await reader.readuntil(b"\r\n")
        writer.close()
        await server.shutdown()
        return head

    assert uvloop.run(served()).startswith(b"HTTP/1.1 200")
