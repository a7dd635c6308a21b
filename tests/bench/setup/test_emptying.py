"""A round begins with an empty broker, even if the previous one ended just after its topics were created."""

from __future__ import annotations

import asyncio
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pytest

from deploy.local.parts.apache_kafka import ApacheKafka
from shared.contract.topics import all_topics
from shared.kafka.apply_topics import apply_topics
from tests.bench.setup.emptying import empty_kafka

NAMES = {topic.name for topic in all_topics()}


@pytest.mark.usefixtures("needs_apache")
async def test_topics_that_were_made_just_now_are_gone_too_and_so_are_those_of_others_and_groups(
    tmp_path: Path,
) -> None:
    async with ApacheKafka(data_dir=tmp_path / "kafka", log_dir=tmp_path) as broker:
        for number in range(6):
            assert set((await apply_topics(broker.bootstrap_servers)).values()) == {"created"}, f"round {number}"
            if number % 2:
                await asyncio.to_thread(use, broker.bootstrap_servers)
            await asyncio.to_thread(empty_kafka, broker.bootstrap_servers)
            assert await asyncio.to_thread(named, broker.bootstrap_servers) == set()


def use(bootstrap_servers: str) -> None:
    """Write to a foreign topic, which the broker creates, and read it in a group."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    made = admin.create_topics([confluent_kafka.admin.NewTopic("somebody-elses", 2, 1)])
    made["somebody-elses"].result(timeout=60)
    producer.produce("somebody-elses", b"value")
    assert producer.flush(60) == 0
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "somebody", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["somebody-elses"])
    try:
        record = consumer.poll(60)
        assert record is not None
        assert record.error() is None
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()


def named(bootstrap_servers: str) -> set[str]:
    """The topics that the broker names."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    return {name for name in admin.list_topics(timeout=60).topics if not name.startswith("__")}
