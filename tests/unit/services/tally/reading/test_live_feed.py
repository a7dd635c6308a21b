"""How the feed handles records of ``tallies.updated``."""

from typing import Any

from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from services.tally.reading.live import LiveHub
from services.tally.reading.live_feed import LiveFeed
from services.tally.reading.metrics import ReadMetrics
from shared.contract.catalogue import Catalogue
from shared.contract.events import TallyUpdated
from tests.support.tally_read_fakes import BUS, HARBOUR, tally


class Feed:
    """A feed, and which versions it found overtaken."""

    def __init__(self) -> None:
        metrics = ReadMetrics(CollectorRegistry())
        self.hub = LiveHub(Catalogue(), metrics)
        self.overtaken: list[tuple[str, tuple[int, int]]] = []
        self._feed = LiveFeed(
            self.hub, metrics, on_bug=print, on_overtaken=lambda name, version: self.overtaken.append((name, version))
        )

    async def read(self, *snapshots: TallyUpdated) -> None:
        await self._feed._on_records(tuple(_record(snapshot) for snapshot in snapshots))

    def shows(self, petition_id: str = HARBOUR) -> int:
        return self.hub.newest(tally(petition_id, 0)).count


def _record(snapshot: TallyUpdated) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(
        topic="tallies.updated", partition=0, offset=0, timestamp=0, timestamp_type=0, headers=(), checksum=None,
        key=snapshot.petition_id.encode(), value=snapshot.model_dump_json().encode(),
        serialized_key_size=0, serialized_value_size=0,
    )  # fmt: skip


async def test_the_newest_snapshot_is_shown_wherever_it_stands_in_the_batch() -> None:
    feed = Feed()
    await feed.read(tally(HARBOUR, 5), tally(HARBOUR, 9), tally(BUS, 3), tally(HARBOUR, 7))
    assert (feed.shows(HARBOUR), feed.shows(BUS)) == (9, 3)


async def test_an_older_snapshot_at_the_end_is_reported_once() -> None:
    feed = Feed()
    await feed.read(tally(HARBOUR, 9))
    await feed.read(tally(HARBOUR, 7))
    assert feed.overtaken == [(HARBOUR, (0, 7))]
    assert feed.shows() == 9


async def test_an_older_snapshot_in_the_same_batch_is_reported_too() -> None:
    feed = Feed()
    await feed.read(tally(HARBOUR, 9), tally(HARBOUR, 7))
    assert feed.overtaken == [(HARBOUR, (0, 7))]


async def test_an_older_snapshot_that_was_followed_by_the_newest_again_needs_nothing() -> None:
    feed = Feed()
    await feed.read(tally(HARBOUR, 9), tally(HARBOUR, 7), tally(HARBOUR, 9))
    assert feed.overtaken == []


async def test_the_same_snapshot_again_is_nothing_to_report() -> None:
    feed = Feed()
    await feed.read(tally(HARBOUR, 9))
    await feed.read(tally(HARBOUR, 9))
    assert feed.overtaken == []
