"""`apply_topics` on real brokers: it creates what is missing, repairs what drifted, and touches nothing else.

It uses the topics' real names, which other tests use too, so these tests have their own broker.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import (
    DLQ_MAX_RECORD_BYTES,
    MILESTONES_REACHED,
    PETITIONS_CHANGED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
    all_topics,
)
from shared.kafka.apply_topics import apply_topics

NAMES = [topic.name for topic in all_topics()]
ALL_CREATED = dict.fromkeys(NAMES, "created")


class Cluster:
    """A broker's description of its topics."""

    def __init__(self, broker: KafkaBroker, admin: AIOKafkaAdminClient) -> None:
        self.broker, self.admin = broker, admin

    async def partitions(self) -> dict[str, int]:
        """The number of partitions of each of our topics that exists."""
        described = await self.admin.describe_topics()
        return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["topic"] in NAMES}

    async def shows(self, wanted: dict[str, int]) -> None:
        """Wait until the broker shows exactly these topics: its metadata follows a change a moment later."""
        deadline = time.monotonic() + 60
        while (found := await self.partitions()) != wanted:
            assert time.monotonic() < deadline, f"{found}, not {wanted}"
            await asyncio.sleep(0.02)

    async def apply(self, *, partitions: int = 3) -> dict[str, str]:
        """Run the step and return what was not left unchanged."""
        done = await apply_topics(self.broker.bootstrap_servers, partitions=partitions)
        assert list(done) == NAMES
        return {name: what for name, what in done.items() if what != "unchanged"}

    async def config(self, topic: str) -> dict[str, str]:
        """A topic's configuration."""
        [response] = await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [(_code, _message, _kind, _name, entries)] = response.resources  # type: ignore[attr-defined]
        return {entry[0]: entry[1] for entry in entries}

    async def has_config(self, topic: str, wanted: dict[str, str]) -> None:
        """Wait until the topic's configuration includes `wanted`."""
        deadline = time.monotonic() + 60
        while not wanted.items() <= (found := await self.config(topic)).items():
            assert time.monotonic() < deadline, f"{topic} has {found}, not {wanted}"
            await asyncio.sleep(0.02)

    async def set_config(self, topic: str, config: dict[str, str]) -> None:
        """Change a topic's configuration as an operator would, and wait until it shows."""
        await self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
        await self.has_config(topic, config)


@pytest.fixture(scope="module")
async def broker(*, apache_is_here: bool, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KafkaBroker]:
    """A broker of this module's own."""
    place = tmp_path_factory.mktemp("topics")
    made = ApacheKafka(data_dir=place / "kafka", log_dir=place) if apache_is_here else EmbeddedKafka(log_dir=place)
    async with made:
        yield made


@pytest.fixture
async def cluster(broker: KafkaBroker) -> AsyncIterator[Cluster]:
    """The broker, without our topics."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    try:
        await admin.start()
        cluster = Cluster(broker, admin)
        await admin.delete_topics(NAMES)
        await cluster.shows({})
        yield cluster
    finally:
        await admin.close()


async def test_every_topic_is_created_with_its_partitions_retention_and_compaction(cluster: Cluster) -> None:
    assert await cluster.apply() == ALL_CREATED

    await cluster.shows(dict.fromkeys(NAMES, 3))
    day = 24 * 60 * 60 * 1000
    for name, kept in {
        SIGNATURES_SUBMITTED.name: {"cleanup.policy": "delete", "retention.ms": str(7 * day)},
        SIGNATURES_VERIFIED.name: {"cleanup.policy": "delete", "retention.ms": str(30 * day)},
        MILESTONES_REACHED.name: {"cleanup.policy": "delete", "retention.ms": str(365 * day)},
        PETITIONS_CHANGED.name: {"cleanup.policy": "compact"},
        TALLIES_UPDATED.name: {"cleanup.policy": "compact"},
        SIGNATURES_SUBMITTED.dlq: {
            "cleanup.policy": "delete",
            "retention.ms": str(90 * day),
            "max.message.bytes": str(DLQ_MAX_RECORD_BYTES),
        },
    }.items():
        await cluster.has_config(name, kept)


async def test_a_second_run_changes_nothing_even_when_it_follows_at_once(cluster: Cluster) -> None:
    await cluster.apply()

    assert await cluster.apply() == {}
    await cluster.shows(dict.fromkeys(NAMES, 3))
    assert await cluster.apply() == {}


async def test_a_topic_that_is_missing_is_created_beside_the_others(cluster: Cluster) -> None:
    await cluster.apply()
    await cluster.shows(dict.fromkeys(NAMES, 3))
    await cluster.admin.delete_topics([TALLIES_UPDATED.name])
    await cluster.shows({name: 3 for name in NAMES if name != TALLIES_UPDATED.name})

    assert await cluster.apply() == {TALLIES_UPDATED.name: "created"}


@pytest.mark.usefixtures("needs_apache")
async def test_partitions_are_added_only_where_the_key_is_the_signer(cluster: Cluster) -> None:
    await cluster.apply()
    await cluster.shows(dict.fromkeys(NAMES, 3))

    assert await cluster.apply(partitions=5) == {SIGNATURES_SUBMITTED.name: "updated"}

    await cluster.shows({**dict.fromkeys(NAMES, 3), SIGNATURES_SUBMITTED.name: 5})
    assert await cluster.apply(partitions=2) == {}, "partitions are never taken away"


@pytest.mark.usefixtures("needs_apache")
async def test_drifted_retention_and_compaction_are_repaired_and_what_an_operator_set_beside_them_stays(
    cluster: Cluster,
) -> None:
    await cluster.apply()
    await cluster.shows(dict.fromkeys(NAMES, 3))
    await cluster.set_config(SIGNATURES_SUBMITTED.name, {"retention.ms": "1000", "segment.ms": "3600000"})
    await cluster.set_config(PETITIONS_CHANGED.name, {"cleanup.policy": "delete"})

    changed = {SIGNATURES_SUBMITTED.name: "updated", PETITIONS_CHANGED.name: "updated"}
    assert await cluster.apply() == changed

    submitted = {"retention.ms": "604800000", "segment.ms": "3600000", "cleanup.policy": "delete"}
    await cluster.has_config(SIGNATURES_SUBMITTED.name, submitted)
    await cluster.has_config(PETITIONS_CHANGED.name, {"cleanup.policy": "compact"})
    assert await cluster.apply() == {}


async def test_a_broker_that_can_only_create_topics_is_told_apart_from_one_that_has_them_right(tmp_path: Path) -> None:
    async with EmbeddedKafka(log_dir=tmp_path) as embedded:
        assert set((await apply_topics(embedded.bootstrap_servers, partitions=3)).values()) == {"created"}
        assert set((await apply_topics(embedded.bootstrap_servers, partitions=3)).values()) == {"unchanged"}

        done = await apply_topics(embedded.bootstrap_servers, partitions=5)

    differs = "differs: 3 partitions, not 5; this broker cannot change it"
    assert done == {**dict.fromkeys(NAMES, "unchanged"), SIGNATURES_SUBMITTED.name: differs}


async def test_a_topic_that_was_made_with_another_configuration_is_reported_where_it_cannot_be_changed(
    tmp_path: Path,
) -> None:
    async with EmbeddedKafka(log_dir=tmp_path) as embedded:
        admin = AIOKafkaAdminClient(bootstrap_servers=embedded.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic(PETITIONS_CHANGED.name, 3, 1, topic_configs={"cleanup.policy": "delete"})])
        await admin.close()

        done = await apply_topics(embedded.bootstrap_servers, partitions=3)

    assert done[PETITIONS_CHANGED.name].startswith("differs: cleanup.policy is delete, not compact")


@pytest.mark.usefixtures("needs_apache")
@pytest.mark.parametrize("days", [2, -400])
async def test_a_producer_with_a_wrong_clock_is_served_and_its_records_are_kept_like_all_others(
    cluster: Cluster, days: int
) -> None:
    await cluster.apply(partitions=1)
    await cluster.shows(dict.fromkeys(NAMES, 1))
    servers, now = cluster.broker.bootstrap_servers, time.time() * 1000
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, acks="all")
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    try:
        await producer.start()
        its_time = int(now + days * 24 * 60 * 60 * 1000)
        await producer.send_and_wait(SIGNATURES_SUBMITTED.name, b"one", timestamp_ms=its_time)
        await consumer.start()
        consumer.assign([TopicPartition(SIGNATURES_SUBMITTED.name, 0)])
        record = await asyncio.wait_for(consumer.getone(), 20)
    finally:
        await producer.stop()
        await consumer.stop()
    assert abs(record.timestamp - now) < 60_000, "the broker's time: retention goes by it"


@pytest.mark.usefixtures("needs_apache")
async def test_a_refusal_of_the_broker_names_the_topic(cluster: Cluster) -> None:
    with pytest.raises(KafkaError, match=SIGNATURES_SUBMITTED.name):
        await apply_topics(cluster.broker.bootstrap_servers, partitions=3, replication_factor=5)
