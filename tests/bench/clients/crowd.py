"""A crowd that watches one live stream: thousands of server-sent event connections in one process, on a separate core.

No load generator in Debian or PyPI holds 10,000 event streams and reports when each has an update; wrk ends requests, locust
would take 2 GB. This does little more than read: per update and subscriber some 10 microseconds.

Run with ``python -m tests.bench.clients.crowd PORT``. It takes lines on that port and answers each with a line of JSON:

``join HOST PORT PATH COUNT``
    Open so many more streams; answered when each has its first event.
``seen REVISION``
    How many have an event with that id or a higher one, and when (monotonic seconds) the first and the last got it.
``leave``
    Close all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final, Self, cast

import uvloop

from deploy.local.parts.ports import LOOPBACK, free_port
from tests.bench.setup.arena import Arena, Command

_ID: Final = b"\nid: "
_AT_ONCE: Final = 200
"""Streams that are being opened: fewer than a listening socket queues."""
_FIRST_EVENT_SECONDS: Final = 60.0


class Newest:
    """Finds the ids of events in a stream that arrives in pieces."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> int | None:
        """The id of the last event that `data` completes; None if there is none."""
        data = self._tail + data
        begins = data.rfind(_ID)
        ends = data.find(b"\n", begins + len(_ID)) if begins >= 0 else -1
        if begins >= 0 and ends < 0:  # the newest id is not complete yet; an earlier one is superseded by it
            self._tail = data[begins:]
            return None
        self._tail = data[max(0, ends, len(data) - len(_ID)) :]
        return int(data[begins + len(_ID) : ends]) if ends >= 0 else None


class _Subscriber(asyncio.Protocol):
    """One stream. Records its last event and time in the crowd's `newest` and `at`."""

    def __init__(self, crowd: _Crowd, number: int) -> None:
        self._crowd, self._number = crowd, number
        self._newest = Newest()
        self._transport: asyncio.Transport | None = None
        self.first_event: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        revision = self._newest.feed(data)
        if revision is None:
            return
        self._crowd.newest[self._number] = revision
        self._crowd.at[self._number] = time.monotonic()
        if not self.first_event.done():
            self.first_event.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost += 1
        if not self.first_event.done():
            self.first_event.set_exception(exc or ConnectionError("the stream ended before its first event"))

    def ask(self, request: bytes) -> None:
        """Request the stream."""
        assert self._transport is not None
        self._transport.write(request)

    def close(self) -> None:
        """End the stream."""
        if self._transport is not None:
            self._transport.close()


class _Crowd:
    """All subscribers.

    Attributes:
        newest: id of the last event, by subscriber.
        at: when it came, by subscriber.
        lost: streams that have ended.
    """

    def __init__(self) -> None:
        self.newest: list[int] = []
        self.at: list[float] = []
        self.lost = 0
        self._subscribers: list[_Subscriber] = []

    async def join(self, host: str, port: int, path: str, count: int) -> dict[str, float]:
        """Open `count` streams."""
        began = time.monotonic()
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
        at_once = asyncio.Semaphore(_AT_ONCE)
        loop = asyncio.get_running_loop()

        async def one() -> None:
            async with at_once, asyncio.timeout(_FIRST_EVENT_SECONDS):
                number = len(self.newest)
                self.newest.append(-1)
                self.at.append(0.0)
                subscriber = _Subscriber(self, number)
                self._subscribers.append(subscriber)
                await loop.create_connection(lambda: subscriber, host, port)
                subscriber.ask(request)
                await subscriber.first_event

        ended = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
        errors = [repr(each) for each in ended if isinstance(each, BaseException)]
        if errors:
            print(f"{len(errors)} streams had no first event: {set(errors)}", file=sys.stderr, flush=True)
        return {"failed": len(errors), "seconds": time.monotonic() - began}

    def seen(self, revision: int) -> dict[str, float]:
        """The subscribers with an event with this id or a higher one."""
        at = [moment for moment, newest in zip(self.at, self.newest, strict=True) if newest >= revision]
        return {"have": len(at), "lost": self.lost, "first": min(at, default=0.0), "last": max(at, default=0.0)}

    def leave(self) -> dict[str, float]:
        """Close all streams."""
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers, self.newest, self.at, self.lost = [], [], [], 0
        return {}


async def _main(port: int) -> None:
    crowd = _Crowd()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().split():
            match line:
                case ["join", host, its_port, path, count]:
                    answer = await crowd.join(host, int(its_port), path, int(count))
                case ["seen", revision]:
                    answer = crowd.seen(int(revision))
                case _:
                    answer = crowd.leave()
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, port)
    await server.serve_forever()


class Crowd:
    """The benchmark's side of the crowd: `async with Crowd(arena) as crowd`."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._process: Command | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        port = free_port()
        self._process = await self._arena.process(
            "crowd", [sys.executable, "-m", "tests.bench.clients.crowd", str(port)]
        )
        for _ in range(200):
            try:
                self._reader, self._writer = await asyncio.open_connection(LOOPBACK, port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            await self._arena.stop_one(self._process)

    @property
    def process(self) -> Command:
        """The crowd's process."""
        assert self._process is not None
        return self._process

    async def join(self, host: str, port: int, path: str, count: int) -> dict[str, float]:
        """Open `count` more streams; returns how many ``failed`` and how many ``seconds`` it took."""
        return await self._ask(f"join {host} {port} {path} {count}")

    async def seen(self, revision: int) -> dict[str, float]:
        """How many ``have`` an event with this id or a higher one, how many streams are ``lost``, and when the ``first``
        and the ``last`` got it."""
        return await self._ask(f"seen {revision}")

    async def leave(self) -> None:
        """Close all streams."""
        await self._ask("leave")

    async def _ask(self, line: str) -> dict[str, float]:
        assert self._reader is not None, "the crowd did not come up"
        assert self._writer is not None
        self._writer.write(line.encode() + b"\n")
        answer: dict[str, float] = json.loads(await self._reader.readline())
        return answer


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
