"""Statistics of requests and streams: percentiles, and a subscriber's last event."""

import asyncio

import pytest

from tests.bench.clients.crowd import Newest
from tests.bench.clients.web import percentile, seconds_until


@pytest.mark.parametrize(("part", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)])
def test_a_percentile_is_a_value_that_was_seen(part: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], part) == value


def test_of_nothing_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 0.5)


async def test_what_does_not_happen_takes_for_ever() -> None:
    async def never() -> bool:
        await asyncio.sleep(0)
        return False

    assert await seconds_until(never, most=0.01, look_every=0.001) == float("inf")


_STREAM = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nretry: 3\n\r\n30\r\nevent: tally\nid: 7\ndata: {}\n\n\r\n"
    b": a heartbeat\r\n\r\n1f\r\nevent: tally\nid: 120\ndata: {}\n\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 1000])
def test_the_last_event_of_a_stream_is_found_however_it_arrives_in_pieces(size: int) -> None:
    newest = Newest()
    seen = [newest.feed(_STREAM[start : start + size]) for start in range(0, len(_STREAM), size)]
    assert [revision for revision in seen if revision is not None] in ([7, 120], [120])
