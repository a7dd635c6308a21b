"""The petition catalogue's feed on a real broker: whole before it is ready, true afterwards, and never stopped by a record."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.local.embedded_kafka import EmbeddedKafka
from deploy.local.kafka import KafkaBroker
from shared.catalogue import Catalogue
from shared.events import PetitionChanged, TallyUpdated
from shared.kafka import catalogue_feed
from shared.kafka.catalogue_feed import CatalogueBehind, CatalogueFeed
from shared.kafka.errors import is_transient
from shared.kafka.headers import event_headers
from shared.kafka.producer import EventProducer
from shared.kafka.record import Record
from shared.service import new_broker
from shared.topics import PETITIONS_CHANGED, apply_topics
from tests.integration.consuming import eventually, settings_for
from tests.unit.shared.petitions import petition

TOPIC = PETITIONS_CHANGED.name
HEADERS = event_headers(PetitionChanged, event_id="1", source="/groundswell/ingest", subject="p")


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[EmbeddedKafka]:
    """A broker of the test's own: the feed reads the topic by its real name, and all of it."""
    async with EmbeddedKafka(log_dir=tmp_path) as broker:
        await apply_topics(broker.bootstrap_servers, partitions=3)
        yield broker


@pytest.fixture
async def writer(kafka: EmbeddedKafka) -> AsyncIterator[EventProducer]:
    """Writes petitions, as ingest does."""
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    yield producer
    await producer.stop()


def changed(event: PetitionChanged) -> Record:
    """The record of a changed petition."""
    return Record(event.petition_id.encode(), event.model_dump_json().encode(), HEADERS)


class Reader:
    """A process's catalogue and its feed."""

    def __init__(self, kafka: KafkaBroker, on_change: Callable[[PetitionChanged], Awaitable[None]] | None) -> None:
        self.catalogue, self.registry, self.bugs = Catalogue(), CollectorRegistry(), list[BaseException]()
        self.feed = CatalogueFeed(self.catalogue, self.registry, on_bug=self.bugs.append, on_change=on_change)
        self.broker = new_broker(settings_for(kafka), self.registry, "test")
        self.feed.subscribe(self.broker)

    async def ready(self) -> bool:
        """Whether all that was there at the start is known."""
        return await self.feed.check() is None

    def titles(self) -> dict[str, str]:
        """Every petition's title."""
        return {known.petition_id: known.title for known in self.catalogue}


@asynccontextmanager
async def reading(
    kafka: KafkaBroker, on_change: Callable[[PetitionChanged], Awaitable[None]] | None = None
) -> AsyncIterator[Reader]:
    reader = Reader(kafka, on_change)
    await reader.broker.start()
    try:
        yield reader
    finally:
        await reader.broker.stop()


async def test_the_catalogue_is_whole_when_it_says_so_and_follows_every_change_afterwards(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    many = [petition(f"petition-{number}", title=f"Title {number}") for number in range(300)]
    await writer.publish_in_order(TOPIC, [changed(event) for event in many])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {event.petition_id: event.title for event in many}
        assert reader.registry.get_sample_value("groundswell_catalogue_petitions") == 300
        await writer.publish(TOPIC, changed(petition("petition-7", title="Another title")))
        await eventually(lambda: reader.titles()["petition-7"] == "Another title", "the change is known")


async def test_a_catalogue_of_no_petitions_is_ready_too(kafka: EmbeddedKafka) -> None:
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert len(reader.catalogue) == 0


async def test_before_the_topic_is_read_the_feed_is_not_ready(kafka: EmbeddedKafka) -> None:
    reader = Reader(kafka, None)
    assert await reader.feed.check() == "petitions.changed is not being read yet"
    assert not reader.feed.complete
    with pytest.raises(CatalogueBehind):
        await reader.feed.catch_up()


async def test_a_record_that_cannot_be_read_is_counted_and_leaves_the_last_good_state(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    good = petition(title="Good")
    key = good.petition_id.encode()
    other = event_headers(TallyUpdated, event_id="1", source="/groundswell/tally", subject="p")
    newer = changed(petition(title="Not to be read"))
    bad = [
        Record(key, b"{not json", HEADERS),
        Record(key, b'{"petition_id": "save-the-harbour"}', HEADERS),
        Record(key, newer.value, []),
        Record(key, newer.value, other),
        Record(b"\xff", b"\xff", HEADERS),
    ]
    await writer.publish_in_order(TOPIC, [changed(good), *bad, changed(petition("after", title="After"))])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Good", "after": "After"}
        assert reader.registry.get_sample_value("groundswell_catalogue_unreadable_records_total") == len(bad)
        assert not reader.bugs


async def test_a_tombstone_removes_a_petition(kafka: EmbeddedKafka, writer: EventProducer) -> None:
    await writer.publish(TOPIC, changed(petition()))
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        await writer.publish(TOPIC, Record(b"save-the-harbour", None, []))
        await eventually(lambda: len(reader.catalogue) == 0, "gone")


async def test_after_catching_up_everything_is_known_that_was_written_before(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    async with reading(kafka) as reader:
        for number in range(30):
            await writer.publish(TOPIC, changed(petition(f"petition-{number}")))
            await reader.feed.catch_up()
            assert reader.catalogue.get(f"petition-{number}") is not None
        assert reader.feed.complete


async def test_every_change_is_told_once_and_what_goes_wrong_there_is_a_bug(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    told: list[str] = []

    async def on_change(event: PetitionChanged) -> None:
        told.append(event.petition_id)
        if event.petition_id == "broken":
            raise KeyError("a bug")

    async with reading(kafka, on_change) as reader:
        await writer.publish(TOPIC, changed(petition("one")))
        await writer.publish(TOPIC, changed(petition("two")))
        await eventually(lambda: sorted(told) == ["one", "two"], "told")
        assert not reader.bugs
        await writer.publish(TOPIC, changed(petition("broken")))
        await eventually(lambda: [type(bug) for bug in reader.bugs] == [KeyError], "reported")


async def test_catching_up_while_kafka_is_away_fails_soon_with_an_error_that_passes(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_feed, "_CATCH_UP_SECONDS", 0.3)
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        kafka.pause()
        try:
            async with asyncio.timeout(5):
                with pytest.raises(CatalogueBehind) as failure:
                    await reader.feed.catch_up()
        finally:
            kafka.resume()
        assert is_transient(failure.value)
        await reader.feed.catch_up()
