"""Tally's read side on real parts: streams from a running server, counts from Valkey."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from deploy.local.parts.valkey import Valkey
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from services.tally.reading.counts import READ_SECONDS
from services.tally.reading.pages import PublicAddresses
from services.tally.reading.routes import build
from shared import redis as shared_redis
from tests.support.tally_read_fakes import BUS, CHANGED, HARBOUR, ReadSide, Served, petition, served, tally

pytestmark = pytest.mark.filterwarnings("error")


@dataclass
class Event:
    """One server-sent event as a browser would see it."""

    name: str = ""
    id: str = ""
    data: Any = None
    retry: int | None = None
    comment: str = ""


class Stream:
    """An open event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self, *, comments: bool = False) -> Event:
        """The next event with data (or any, with `comments`). Raises StopAsyncIteration at the end of the stream."""
        async with asyncio.timeout(60):
            while True:
                event = await self._read()
                if comments or event.data is not None:
                    return event

    async def _read(self) -> Event:
        event = Event()
        while line := await anext(self._lines):
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    event.name = value
                case "id":
                    event.id = value
                case "data":
                    event.data = json.loads(value)
                case "retry":
                    event.retry = int(value)
                case "":
                    event.comment = value
        return event


@asynccontextmanager
async def stream(server: Served, path: str, **headers: str) -> AsyncIterator[Stream]:
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        client.stream(
            "GET", path, headers={name.replace("_", "-"): value.encode("latin-1") for name, value in headers.items()}
        ) as found,
    ):
        yield Stream(found)


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide(max_subscribers=3)
    side.catalogue.apply(petition(HARBOUR))
    side.catalogue.apply(petition(BUS, title="Later night buses"))
    side.reader.put(tally(HARBOUR, 10))
    return side


@pytest.fixture
async def server(read_side: ReadSide) -> AsyncIterator[Served]:
    async with served(read_side) as running:
        yield running


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


TALLY_STREAM = f"/v1/petitions/{HARBOUR}/tally/stream"


async def test_a_stream_begins_with_the_tally_as_it_is_and_goes_on_with_updates(
    server: Served, read_side: ReadSide
) -> None:
    async with stream(server, TALLY_STREAM) as events:
        assert events.response.headers["content-type"].startswith("text/event-stream")
        first = await events.next()
        assert (first.name, first.id, first.data) == ("tally", "10", json.loads(tally(HARBOUR, 10).model_dump_json()))
        read_side.hub.publish(tally(HARBOUR, 11))
        second = await events.next()
        assert (second.name, second.id, second.data["count"]) == ("tally", "11", 11)


async def test_a_stream_of_counts_leaves_the_break_downs_out(server: Served) -> None:
    async with stream(server, f"{TALLY_STREAM}?detail=count") as events:
        assert (await events.next()).data == {"petition_id": HARBOUR, "count": 10, "revision": 10}


async def test_a_reader_who_comes_back_is_not_sent_the_same_revision_again(server: Served, read_side: ReadSide) -> None:
    async with stream(server, TALLY_STREAM, last_event_id="10") as events:
        await until(lambda: read_side.metric("stream_subscribers") == 1)
        read_side.hub.publish(tally(HARBOUR, 10))
        read_side.hub.publish(tally(HARBOUR, 11))
        assert (await events.next()).id == "11"


@pytest.mark.parametrize("nonsense", ["9", "", "-1", "a", "1" * 400, "²"])
async def test_a_reader_with_an_older_or_no_revision_is_sent_the_tally(server: Served, nonsense: str) -> None:
    async with stream(server, TALLY_STREAM, last_event_id=nonsense) as events:
        assert (await events.next()).id == "10"


async def test_an_organisations_stream_has_all_counts_and_the_sum(server: Served, read_side: ReadSide) -> None:
    async with stream(server, "/v1/organisations/river-valley/stream") as events:
        first = await events.next()
        assert first.name == "organisation"
        assert first.data["slug"] == "river-valley"
        assert first.data["supporters"] == 10
        counts = {one["petition_id"]: one["count"] for one in first.data["petitions"]}
        assert counts == {HARBOUR: 10, BUS: 0}
        read_side.hub.publish(tally(BUS, 5))
        second = await events.next()
        assert second.name == "tally"
        assert second.data == {"petition_id": BUS, "count": 5, "revision": 5, "supporters": 15}


async def test_an_idle_stream_is_kept_open_by_comments(read_side: ReadSide) -> None:
    read_side.heartbeat_seconds = 0.05
    async with served(read_side) as server, stream(server, TALLY_STREAM) as events:
        await events.next()
        assert (await events.next(comments=True)).comment == "still here"
        assert (await events.next(comments=True)).comment == "still here"


async def test_readers_are_told_to_come_back_at_different_times(server: Served) -> None:
    times = set()
    for _ in range(5):
        async with stream(server, TALLY_STREAM) as events:
            times.add((await events.next(comments=True)).retry)
    assert len(times) > 1
    assert all(time is not None and 1_000 <= time <= 6_000 for time in times)


async def test_beyond_the_bound_streams_are_refused_until_a_reader_leaves(server: Served, read_side: ReadSide) -> None:
    async with stream(server, TALLY_STREAM), stream(server, TALLY_STREAM):
        async with stream(server, TALLY_STREAM), stream(server, TALLY_STREAM) as refused:
            assert refused.response.status_code == 503
            assert int(refused.response.headers["retry-after"]) > 0
        await until(lambda: read_side.metric("stream_subscribers") == 2)
        async with stream(server, TALLY_STREAM) as admitted:
            assert (await admitted.next()).id == "10"
    await until(lambda: read_side.metric("stream_subscribers") == 0)


async def test_a_server_that_stops_ends_its_streams_neatly_and_at_once(read_side: ReadSide) -> None:
    async with served(read_side) as server, stream(server, TALLY_STREAM) as one, stream(server, TALLY_STREAM) as two:
        await one.next()
        await two.next()
        server.server.should_exit = True  # as after SIGTERM; hub.close is not called
        for events in (one, two):
            # A stream that was cut instead would raise RemoteProtocolError: its last chunk would be missing.
            with pytest.raises(StopAsyncIteration):
                await events.next()
        async with asyncio.timeout(60):
            await server.ended
    assert read_side.metric("stream_subscribers") == 0


async def test_after_close_nobody_is_admitted(server: Served, read_side: ReadSide) -> None:
    async with stream(server, TALLY_STREAM) as events:
        await events.next()
        read_side.hub.close()
        with pytest.raises(StopAsyncIteration):
            await events.next()
    async with stream(server, TALLY_STREAM) as refused:
        assert (refused.response.status_code, refused.response.headers["retry-after"]) == (503, "1")


async def test_a_reader_who_takes_nothing_for_a_while_gets_the_newest_and_few_in_between(
    server: Served, read_side: ReadSide
) -> None:
    last = 20_000
    big = {f"2026-03-02T10:{minute:02d}Z": 1 for minute in range(60)}
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        slow.setblocking(False)
        host, port = server.url.removeprefix("http://").split(":")
        await loop.sock_connect(slow, (host, int(port)))
        await loop.sock_sendall(slow, f"GET {TALLY_STREAM} HTTP/1.1\r\nHost: pages\r\n\r\n".encode())
        await until(lambda: read_side.metric("stream_subscribers") == 1)
        for count in range(11, last + 1):
            read_side.hub.publish(tally(HARBOUR, count).model_copy(update={"minutes": big}))
            if count % 10 == 0:
                await asyncio.sleep(0)
        received = b""
        async with asyncio.timeout(60):
            while f"id: {last}\n".encode() not in received:
                received += await loop.sock_recv(slow, 1 << 20)
    ids = [int(line.removeprefix(b"id: ")) for line in received.split(b"\n") if line.startswith(b"id: ")]
    assert ids == sorted(set(ids)), "never the same revision twice, never a lower one"
    assert len(ids) < last / 2
    assert read_side.metric("stream_frames_total", fate="replaced") > last / 2


@asynccontextmanager
async def reading_from(valkey: Valkey, side: ReadSide) -> AsyncIterator[tuple[TallyStore, httpx.AsyncClient]]:
    """The read side of `side` on a real Valkey, and what writes there."""
    redis = shared_redis.connect(valkey.url)
    store = TallyStore(redis, begun=side.catalogue.changed_at)
    addresses = PublicAddresses(ingest="http://sign.example", pages="http://pages.example")
    app = build(side.catalogue, store, side.hub, side.metrics, addresses=addresses, read_seconds=side.read_seconds)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://pages.example") as client:
            yield store, client
    finally:
        await redis.aclose()


async def until_fresh(side: ReadSide) -> None:
    async with asyncio.timeout(30):
        while side.metric("circuit_open"):
            await asyncio.sleep(0.05)


async def test_counts_come_from_valkey_and_without_it_they_are_those_that_were_announced(valkey: Valkey) -> None:
    side = ReadSide()
    slug, harbour, bus = "river-valley", "valkey-harbour-baths", "valkey-night-buses"
    side.catalogue.apply(petition(harbour))
    side.catalogue.apply(petition(bus))
    async with reading_from(valkey, side) as (store, client):
        await store.swap_in(harbour, TallyState(3, 3, {0: 3}, {"NL": 2, "BE": 1}, {29_540_000: 3}), force=True)
        body = (await client.get(f"/v1/petitions/{harbour}/tally")).json()
        assert (body["count"], body["revision"], body["countries"]) == (3, 3, {"BE": 1, "NL": 2})
        assert (await client.get(f"/v1/organisations/{slug}")).json()["supporters"] == 3
        side.hub.publish(tally(harbour, 2))
        await valkey.stop()
        try:
            stale = (await client.get(f"/v1/petitions/{harbour}/tally")).json()
            assert (stale["count"], stale["stale"]) == (3, True), "it was read, so nothing older is shown"
            side.hub.publish(tally(harbour, 4))
            assert (await client.get(f"/v1/petitions/{harbour}/tally")).json()["count"] == 4
            for path in (f"/p/{harbour}", f"/p/{bus}", f"/o/{slug}"):
                assert (await client.get(path)).status_code == 200
        finally:
            await valkey.start()
        await until_fresh(side)
        back = (await client.get(f"/v1/petitions/{harbour}/tally")).json()
        assert (back["count"], back["stale"]) == (4, False), (
            "Valkey has an older version than the one that was announced"
        )


async def test_while_valkey_is_frozen_nobody_waits_for_it_but_the_first_and_one_probe(valkey: Valkey) -> None:
    side = ReadSide(read_seconds=READ_SECONDS)
    harbour = "frozen-harbour-baths"
    side.catalogue.apply(petition(harbour))
    async with reading_from(valkey, side) as (store, client):
        await store.swap_in(harbour, TallyState(3, 3, {0: 3}, {"NL": 3}, {}), force=True)
        side.hub.publish(tally(harbour, 3))
        valkey.pause()
        try:
            for path in (f"/p/{harbour}", f"/v1/petitions/{harbour}/tally", "/o/river-valley") * 10:
                answer = await client.get(path)
                assert answer.status_code == 200
                assert "As of" in answer.text or "as of" in answer.text or answer.json()["stale"]
            assert side.metric("store_failures_total", cause="too_slow") == 1, "one has waited, as long as readers do"
            stale = [("petition_page", "stale"), ("tally", "stale"), ("organisation_page", "stale")]
            assert [side.metric("answers_total", what=what, outcome=outcome) for what, outcome in stale] == [10] * 3
            assert side.metric("circuit_open") == 1
        finally:
            valkey.resume()
        await until_fresh(side)
        assert (await client.get(f"/p/{harbour}")).status_code == 200


async def test_a_petition_that_nobody_signed_is_as_old_as_it_is_and_not_of_1970(valkey: Valkey) -> None:
    side = ReadSide()
    quiet = "valkey-nobody-signed"
    side.catalogue.apply(petition(quiet))
    async with reading_from(valkey, side) as (store, client):
        assert (await client.get(f"/v1/petitions/{quiet}/tally")).json()["updated_at"] == "2026-03-01T12:00:00Z"
        assert (await store.tallies([quiet]))[quiet].updated_at == CHANGED, "as it goes on the topic and the streams"
        side.catalogue.remove(quiet)
        unknown = (await store.tallies([quiet]))[quiet].updated_at
        assert unknown > CHANGED, "Redis' own time"
