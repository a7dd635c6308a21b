"""The load's HTTP client: one connection, one request at a time, and the truth about what was answered."""

from collections.abc import Iterator

import pytest

from deploy.demo.sending.client import Answer, Connection, ConnectionLost
from tests.unit.deploy.demo.sending.fake_ingest import Reply, fake_ingest


async def test_requests_share_one_connection_and_each_gets_its_own_answer() -> None:
    async with fake_ingest(lambda request: (202, {"X-Path": request.path}, request.body.upper())) as fake:
        connection = Connection(fake.url)
        for word in ("one", "two", "three"):
            answer = await connection.post(f"/{word}", word.encode(), {"Accept": "text/plain"})
            assert (answer.status, answer.headers[b"x-path"], answer.body) == (
                202,
                f"/{word}".encode(),
                word.upper().encode(),
            )
        connection.close()
    assert fake.connections == 1
    assert [request.headers["accept"] for request in fake.requests] == ["text/plain"] * 3


async def test_a_body_of_several_pieces_arrives_whole() -> None:
    async with fake_ingest(lambda _: (207, {}, b"x" * 1_000_000)) as fake:
        connection = Connection(fake.url)
        assert len((await connection.post("/", b"", {})).body) == 1_000_000
        connection.close()


async def test_a_connection_that_is_closed_without_an_answer_says_so_and_the_next_request_opens_another() -> None:
    replies: Iterator[Reply | None] = iter([None, (202, {}, b"")])
    async with fake_ingest(lambda _: next(replies)) as fake:
        connection = Connection(fake.url)
        with pytest.raises(ConnectionLost):
            await connection.post("/", b"", {})
        assert (await connection.post("/", b"", {})).status == 202
        connection.close()
    assert fake.connections == 2


async def test_after_connection_close_the_next_request_opens_another() -> None:
    async with fake_ingest(lambda _: (503, {"Connection": "close"}, b"")) as fake:
        connection = Connection(fake.url)
        await connection.post("/", b"", {})
        await connection.post("/", b"", {})
        connection.close()
    assert fake.connections == 2


async def test_where_nobody_listens_is_an_os_error() -> None:
    async with fake_ingest(lambda _: None) as fake:
        pass
    with pytest.raises(OSError, match=r"."):
        await Connection(fake.url).post("/", b"", {})


def test_retry_after_is_in_seconds_and_one_where_nothing_is_said() -> None:
    assert Answer(503, {b"retry-after": b"5"}).retry_after == 5
    assert Answer(503, {}).retry_after == 1
    assert Answer(503, {b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after == 1


def test_only_plain_http_addresses_are_taken() -> None:
    with pytest.raises(ValueError, match="http"):
        Connection("https://127.0.0.1:1/")
