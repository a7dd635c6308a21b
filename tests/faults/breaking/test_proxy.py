"""The proxy of the fault harness: what it must never change, and each of its network faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from deploy.local.parts.ports import LOOPBACK, free_port
from tests.faults.breaking.proxy import Proxy

Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_proxy_to(served: Served) -> AsyncIterator[Proxy]:
    """A server that handles every connection with `served`, behind a proxy."""
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await served(reader, writer)
        except ConnectionError:
            pass  # errors that the proxy causes on purpose
        except Exception as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    proxy = Proxy("trial", LOOPBACK, server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        server.close()
        await server.wait_closed()
    assert failures == []


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def say(line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(line)
    return await reader.readexactly(len(line))


async def nobody_is_connected(proxy: Proxy) -> None:
    async with asyncio.timeout(60):
        while proxy.connections:
            await asyncio.sleep(0.01)


def reset(writer: asyncio.StreamWriter) -> None:
    no_lingering = struct.pack("ii", 1, 0)  # closing sends RST
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_lingering)
    writer.transport.abort()


async def test_ten_megabytes_come_back_byte_for_byte_and_the_connection_ends_when_both_sides_have_ended() -> None:
    sent = random.Random(7).randbytes(10_000_000)
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _, came = await asyncio.gather(send(), reader.read(-1))
        assert came == sent
        await nobody_is_connected(proxy)
        assert proxy.taken == 1


async def test_who_has_said_everything_still_hears_the_answer() -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)  # until FIN
        await asyncio.sleep(0.1)
        writer.write(b"you said " + question)

    async with a_proxy_to(answer_at_the_end) as proxy, connected(proxy) as (reader, writer):
        writer.write(b"all")
        writer.write_eof()
        assert await reader.read(-1) == b"you said all"


async def test_a_reader_that_does_not_read_makes_the_writer_wait() -> None:
    read_now = asyncio.Event()

    async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_now.wait()
        writer.write(str(len(await reader.read(-1))).encode())

    size = 64_000_000
    async with a_proxy_to(read_late) as proxy, connected(proxy) as (reader, writer):
        writer.write(bytes(size))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.drain()
        read_now.set()
        await writer.drain()
        writer.write_eof()
        assert await reader.read(-1) == str(size).encode()


async def test_a_reset_of_one_side_is_a_reset_for_the_other() -> None:
    heard: asyncio.Queue[Exception] = asyncio.Queue()

    async def hear_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        except ConnectionResetError as reset:
            heard.put_nowait(reset)

    async with a_proxy_to(hear_the_end) as proxy, connected(proxy) as (_reader, writer):
        writer.write(b"half a")
        await asyncio.sleep(0.05)
        reset(writer)
        async with asyncio.timeout(60):
            assert isinstance(await heard.get(), ConnectionResetError)


async def test_who_ends_and_then_resets_is_gone_when_the_other_side_ends() -> None:
    async def end_without_a_word(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async with a_proxy_to(end_without_a_word) as proxy, connected(proxy) as (_reader, writer):
        with proxy.slow(0.1):
            writer.write_eof()
            await asyncio.sleep(0.05)
            reset(writer)
        await nobody_is_connected(proxy)


async def test_a_target_that_is_down_resets_and_is_found_again_when_it_is_up() -> None:
    proxy = Proxy("trial", LOOPBACK, port := free_port())
    await proxy.start()
    async with connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    server = await asyncio.start_server(echo, LOOPBACK, port)
    async with connected(proxy) as (reader, writer):
        assert await say(b"there again", reader, writer) == b"there again"
    await proxy.stop()
    server.close()


async def test_cut_resets_every_connection_and_takes_new_ones() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as one, connected(proxy) as other:
        await say(b"one", *one)
        await say(b"other", *other)
        assert proxy.cut() == 2
        for reader, _ in (one, other):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        async with connected(proxy) as new:
            assert await say(b"new", *new) == b"new"


async def test_refusing_refuses_new_connections_and_resets_old_ones_until_it_is_lifted() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        await say(b"before", reader, writer)
        with proxy.refusing():
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(LOOPBACK, proxy.port)
        async with connected(proxy) as after:
            assert await say(b"after", *after) == b"after"


async def test_nobody_gets_the_port_while_connections_are_refused() -> None:
    async with a_proxy_to(echo) as proxy:
        with proxy.refusing(), pytest.raises(OSError, match="in use"):
            await asyncio.start_server(echo, LOOPBACK, proxy.port, reuse_address=False)


async def test_a_stall_lets_nothing_pass_and_loses_nothing() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as old:
        await say(b"before", *old)
        with proxy.stalled():
            async with connected(proxy) as new:
                for reader, writer in (old, new):
                    writer.write(b"during")
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await reader.read(1)
                assert proxy.connections == 2
        reader, writer = old
        assert await reader.readexactly(6) == b"during"
        assert await say(b"after", reader, writer) == b"after"


async def test_a_stalled_connection_can_be_cut() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        await say(b"before", reader, writer)
        with proxy.stalled():
            writer.write(b"lost")
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)


async def test_latency_delays_both_ways_keeps_the_order_and_lets_much_be_under_way() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        await say(b"opened", reader, writer)
        lines = [b"%06d" % number for number in range(100)]
        with proxy.slow(0.1):
            began = time.monotonic()
            for line in lines:
                writer.write(line)
                await asyncio.sleep(0.001)
            came = await reader.readexactly(600)
            took = time.monotonic() - began
        assert came == b"".join(lines)
        assert 0.2 <= took < 20  # no less than one way and back; one after the other they would have taken 20 s


async def test_nothing_overtakes_when_the_latency_falls() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        await say(b"opened", reader, writer)
        with proxy.slow(0.2):
            writer.write(b"first,")
            await asyncio.sleep(0.05)
        writer.write(b"second")
        assert await reader.readexactly(12) == b"first,second"


async def test_the_end_of_a_slow_connection_comes_after_its_last_byte() -> None:
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        with proxy.slow(0.1):
            writer.write(b"last words")
            writer.write_eof()
            assert await reader.read(-1) == b"last words"


async def test_stop_ends_all_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with a_proxy_to(echo) as proxy, connected(proxy) as (reader, writer):
        await say(b"open", reader, writer)
        await proxy.stop()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, proxy.port)
    await asyncio.sleep(0.05)
    assert {task.get_name() for task in asyncio.all_tasks() - before} == set()
