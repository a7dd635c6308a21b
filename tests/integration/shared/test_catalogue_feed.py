"""The petition catalogue's feed on a real broker: whole before it is ready, true afterwards, and never stopped by a record."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged, TallyUpdated
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.apply_topics import apply_topics
from shared.kafka.broadcasting import catalogue_feed
from shared.kafka.broadcasting.catalogue_feed import CatalogueBehind, CatalogueFeed
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.runtime.failures import is_transient
from shared.service import new_broker
from tests.support.consuming import Raw, settings_for, write
from tests.support.packing import STRANGE, strange_name, write_changed
from tests.support.waiting import eventually
from tests.unit.shared.contract.petitions import petition

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

    def metric(self, name: str) -> float | None:
        """The value of a metric of the catalogue."""
        return self.registry.get_sample_value(f"groundswell_catalogue_{name}")

    def unreadable(self) -> float | None:
        """How many records were passed over."""
        return self.metric("unreadable_records_total")

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


async def test_every_change_is_told_once_and_one_that_cannot_be_taken_stops_nothing(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    told: list[str] = []

    async def on_change(event: PetitionChanged) -> None:
        told.append(event.petition_id)
        if event.petition_id == "broken":
            raise KeyError("a bug that one petition meets")

    await writer.publish(TOPIC, changed(petition("broken")))
    async with reading(kafka, on_change) as reader:
        await eventually(reader.ready, "a service starts all the same")
        await writer.publish(TOPIC, changed(petition("one")))
        await writer.publish(TOPIC, changed(petition("two")))
        await eventually(lambda: sorted(told) == ["broken", "one", "two"], "told")
        assert reader.unreadable() == 1
        assert not reader.bugs


async def test_a_record_under_another_key_changes_nothing(kafka: EmbeddedKafka, writer: EventProducer) -> None:
    own, forged = petition(title="Of the administrator"), petition(title="Of somebody else")
    await writer.publish(TOPIC, changed(own))
    wrong_keys = (b"another-petition", b"", b"\xff", None)
    await writer.publish_in_order(TOPIC, [changed(forged)._replace(key=key) for key in wrong_keys])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Of the administrator"}
        assert reader.unreadable() == len(wrong_keys)


async def test_a_tombstone_of_no_petition_removes_nothing(kafka: EmbeddedKafka, writer: EventProducer) -> None:
    await writer.publish(TOPIC, changed(petition()))
    await writer.publish_in_order(TOPIC, [Record(key, None, []) for key in (b"\xff", None, b"", b"unknown")])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert list(reader.titles()) == ["save-the-harbour"]
        assert not reader.bugs


@pytest.mark.parametrize("field", ["opens_at", "closes_at", "changed_at"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
async def test_a_moment_that_no_service_could_work_with_is_passed_over(
    kafka: EmbeddedKafka, writer: EventProducer, field: str, moment: str
) -> None:
    bad = json.dumps({**json.loads(petition(title="Bad").model_dump_json()), field: moment}).encode()
    await writer.publish_in_order(TOPIC, [changed(petition(title="Good")), changed(petition())._replace(value=bad)])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Good"}
        assert reader.unreadable() == 1


HOME = partition_of(b"save-the-harbour", 3)
ELSEWHERE = [partition for partition in range(3) if partition != HOME]


def placed(partition: int, title: str | None) -> Raw:
    """A record of the petition, or its tombstone, in a partition of the test's choice."""
    record = changed(petition(title=title or "")) if title else Record(b"save-the-harbour", None, [])
    return Raw(record.value, headers=record.headers, key=record.key, partition=partition)


@pytest.mark.parametrize("home_first", [True, False])
async def test_a_record_in_another_partition_than_its_keys_never_wins_over_one_there(
    kafka: EmbeddedKafka, *, home_first: bool
) -> None:
    records = [placed(HOME, "At home"), placed(ELSEWHERE[0], "Elsewhere")]
    async with reading(kafka) as reader:
        for record in records if home_first else reversed(records):
            await write(kafka, TOPIC, [record])
            await reader.feed.catch_up()
        assert reader.titles() == {"save-the-harbour": "At home"}
        await write(kafka, TOPIC, [placed(ELSEWHERE[1], "Later, and elsewhere")])
        await reader.feed.catch_up()
        assert reader.titles() == {"save-the-harbour": "At home"}
        assert (reader.metric("misplaced_records_total") or 0) >= 1
    async with reading(kafka) as restarted:
        await eventually(restarted.ready, "ready")
        assert restarted.titles() == {"save-the-harbour": "At home"}


async def test_a_record_elsewhere_serves_while_there_is_none_at_home(kafka: EmbeddedKafka) -> None:
    await write(kafka, TOPIC, [placed(ELSEWHERE[0], "Older")])
    await write(kafka, TOPIC, [placed(ELSEWHERE[1], "Newer")])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Newer"}
        await write(kafka, TOPIC, [placed(HOME, "At home")])
        await reader.feed.catch_up()
        assert reader.titles() == {"save-the-harbour": "At home"}


async def test_a_tombstone_elsewhere_removes_only_what_stands_there(kafka: EmbeddedKafka) -> None:
    await write(kafka, TOPIC, [placed(HOME, "At home"), placed(ELSEWHERE[0], "Elsewhere")])
    async with reading(kafka) as reader:
        await write(kafka, TOPIC, [placed(ELSEWHERE[0], None)])
        await reader.feed.catch_up()
        assert reader.titles() == {"save-the-harbour": "At home"}
        await write(kafka, TOPIC, [placed(HOME, None)])
        await reader.feed.catch_up()
        await write(kafka, TOPIC, [placed(ELSEWHERE[1], "Late")])
        await reader.feed.catch_up()
        assert reader.titles() == {}


async def test_a_record_that_cannot_be_unpacked_keeps_no_service_from_starting(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = placed(HOME, "Not to be read")
    await write(kafka, TOPIC, [placed(HOME, "Good")])
    named = Raw(bad.value, headers=[*bad.headers, STRANGE], key=bad.key, partition=bad.partition)
    await write_changed(kafka, TOPIC, [named], strange_name, monkeypatch)
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Good"}
        assert reader.unreadable() == 1
        await write(kafka, TOPIC, [placed(HOME, "After it")])
        await reader.feed.catch_up()
        assert reader.titles() == {"save-the-harbour": "After it"}
        assert not reader.bugs


async def test_catching_up_while_kafka_is_away_fails_soon_with_an_error_that_passes(
    kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_feed, "_CATCH_UP_SECONDS", 0.3)
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        kafka.pause()
        try:
            async with asyncio.timeout(60):
                with pytest.raises(CatalogueBehind) as failure:
                    await reader.feed.catch_up()
        finally:
            kafka.resume()
        assert is_transient(failure.value)
        await reader.feed.catch_up()


# -------------------------------------------------------------------------------------------------------------- versions


async def test_a_record_that_comes_late_from_who_was_overtaken_is_passed_over_and_said_to_be_the_last_one(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    newest = petition(title="Newest", version=2_000)
    await writer.publish_in_order(TOPIC, [changed(newest), changed(petition(title="Late", version=1_000))])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Newest"}
        assert reader.feed.overtaken() == [newest]
        assert reader.metric("overtaken_records_total") == 1
        await writer.publish(TOPIC, changed(newest))
        await eventually(lambda: reader.feed.overtaken() == [], "it is the last one again")
        await writer.publish(TOPIC, changed(petition(title="After it", version=2_001)))
        await eventually(lambda: reader.titles() == {"save-the-harbour": "After it"}, "the change is known")


async def test_a_record_without_a_version_holds_by_its_place_and_does_not_let_an_older_version_back_in(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    records = [
        petition(title="With one", version=2_000),
        petition(title="Without"),
        petition(title="Late", version=1_000),
    ]
    await writer.publish_in_order(TOPIC, [changed(one) for one in records])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Without"}
        await writer.publish(TOPIC, changed(petition(title="Next", version=2_001)))
        await eventually(lambda: reader.titles() == {"save-the-harbour": "Next"}, "the change is known")


async def test_a_version_of_a_time_to_come_is_none_so_there_is_always_room_above_what_was_written(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    forged = petition(title="Forged", version=2**53 - 1)
    await writer.publish_in_order(TOPIC, [changed(forged), changed(petition(title="Right", version=1_795_344_127_000))])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert reader.titles() == {"save-the-harbour": "Right"}
        assert reader.feed.overtaken() == []


async def test_a_petition_that_was_deleted_stays_so_when_a_late_record_comes(
    kafka: EmbeddedKafka, writer: EventProducer
) -> None:
    gone = petition(version=2_000)
    tombstone = Record(gone.petition_id.encode(), None, HEADERS)
    late = changed(petition(title="Late", version=1_000))
    await writer.publish_in_order(TOPIC, [changed(gone), tombstone, late])
    async with reading(kafka) as reader:
        await eventually(reader.ready, "ready")
        assert (reader.titles(), reader.feed.overtaken()) == ({}, [])
