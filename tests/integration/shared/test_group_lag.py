"""The lag of every consumer group, as the brokers know it: with members, without, and before anybody has read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from deploy.local.parts.embedded_kafka import EmbeddedKafka
from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.ports import free_port
from shared.contract.topics import Group, Topic
from shared.kafka import group_lag
from shared.kafka.group_lag import GroupLag
from shared.runtime.settings import CommonSettings
from tests.support.consuming import group_of, new_topic, numbers, settings_for, unmade_topic, write
from tests.support.waiting import eventually


class Measured:
    """A `GroupLag` and what it shows."""

    def __init__(self, settings: CommonSettings, *groups: Group) -> None:
        self.registry = CollectorRegistry()
        self.lags = GroupLag(settings, self.registry, groups)

    def shown(self, group: Group, name: str = "lag_records") -> float | None:
        labels = {"group": group.name, "topic": group.topic.name}
        return self.registry.get_sample_value(f"groundswell_group_{name}", labels)

    def failures(self, cause: str) -> float | None:
        return self.registry.get_sample_value("groundswell_group_lag_failures_total", {"cause": cause})

    async def __aenter__(self) -> Measured:
        self._running = asyncio.create_task(self.lags.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait({self._running})


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_lag, "MEASURE_SECONDS", 0.05)


@pytest.fixture(params=["as the tests run", "embedded"])
async def broker(request: pytest.FixtureRequest, kafka: KafkaBroker, tmp_path: Path) -> AsyncIterator[KafkaBroker]:
    """The broker of this run, and the embedded one."""
    if request.param == "as the tests run":
        yield kafka
        return
    async with EmbeddedKafka(log_dir=tmp_path) as embedded:
        yield embedded


async def commit(kafka: KafkaBroker, group: Group, offsets: dict[int, int]) -> None:
    """Join the group, commit, and leave it."""
    consumer = AIOKafkaConsumer(
        group.topic.name, bootstrap_servers=kafka.bootstrap_servers, group_id=group.name, enable_auto_commit=False
    )
    await consumer.start()
    try:
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=50)
        await consumer.commit(
            {TopicPartition(group.topic.name, n): OffsetAndMetadata(end, "") for n, end in offsets.items()}
        )
    finally:
        await consumer.stop()


async def group_with(kafka: KafkaBroker, records: int) -> Group:
    """A group of a topic with so many unread records in partition 0, one batch each."""
    topic: Topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(records), one_by_one=True)
    return Group(group_of(topic), topic)


async def test_a_group_that_nobody_is_in_has_a_lag(broker: KafkaBroker) -> None:
    group = await group_with(broker, 5)
    async with Measured(settings_for(broker), group) as measured:
        await eventually(lambda: measured.shown(group) == 5, "nothing was ever committed: all of it")
        await commit(broker, group, {0: 3})
        await eventually(lambda: measured.shown(group) == 2, "what is committed is not behind")
        assert measured.shown(group, "committed_offset") == 3
        await commit(broker, group, {0: 5})
        await eventually(lambda: measured.shown(group) == 0, "all is committed")


async def test_what_retention_has_deleted_is_no_lag(needs_apache: None, kafka: KafkaBroker) -> None:
    group = await group_with(kafka, 5)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_records({TopicPartition(group.topic.name, 0): RecordsToDelete(before_offset=4)})
    await admin.close()
    async with Measured(settings_for(kafka), group) as measured:
        await eventually(lambda: measured.shown(group) == 1, "one record is left to read")


async def test_a_group_whose_topic_is_missing_hides_no_other(broker: KafkaBroker) -> None:
    missing, there = Group("of-nothing", unmade_topic()), await group_with(broker, 2)
    async with Measured(settings_for(broker), missing, there) as measured:
        await eventually(lambda: measured.shown(there) == 2, "the other one is measured")
        assert measured.shown(missing) is None
        assert (measured.failures("UnknownTopicOrPartitionError") or 0) > 0


async def test_no_old_number_is_shown_while_the_brokers_do_not_answer(tmp_path: Path) -> None:
    async with EmbeddedKafka(log_dir=tmp_path) as kafka:
        group = await group_with(kafka, 2)
        async with Measured(settings_for(kafka), group) as measured:
            await eventually(lambda: measured.shown(group) == 2, "it is measured")
            kafka.pause()
            try:
                await eventually(lambda: measured.shown(group) is None, "a Kafka that hangs gives no number")
            finally:
                kafka.resume()
            await eventually(lambda: measured.shown(group) == 2, "it is measured again")
    assert (measured.failures("TimeoutError") or 0) > 0


async def test_a_start_before_kafka_is_a_failure_that_is_counted() -> None:
    settings = CommonSettings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}")
    group = Group("early", unmade_topic())
    async with Measured(settings, group) as measured:
        await eventually(lambda: (measured.failures("KafkaConnectionError") or 0) > 1, "tried again and counted")
    assert measured.shown(group) is None
