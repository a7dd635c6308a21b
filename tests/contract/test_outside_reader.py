"""A stranger to this code reads our topics: another Kafka client (librdkafka) and the public CloudEvents SDK."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import confluent_kafka
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from shared.contract.topics import TOPICS, Topic
from tests.support.system import System


def _records(system: System, topic: str) -> Iterator[confluent_kafka.Message]:
    """Every record that is on a topic now."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": f"outside-{uuid.uuid4()}",
            "enable.auto.commit": False,
        }
    )
    try:
        left: dict[int, int] = {}
        start = []
        for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
            first, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, number), timeout=20)
            if first < end:
                start.append(confluent_kafka.TopicPartition(topic, number, first))
                left[number] = end
        consumer.assign(start)
        while left:
            record = consumer.poll(20)
            assert record is not None, f"{topic} gave nothing more; ends not reached: {left}"
            assert record.error() is None
            if record.offset() + 1 >= left.get(record.partition(), 0):
                left.pop(record.partition(), None)
            yield record
    finally:
        consumer.close()


@dataclass
class Busy:
    """A petition that left something on every topic."""

    petition_id: str
    signature_ids: list[str]


def _events(system: System, petition_id: str, topic: Topic) -> list[tuple[bytes, BaseCloudEvent]]:
    """A petition's events on a topic, as the SDK reads them, with the records' keys."""
    found = []
    for record in _records(system, topic.name):
        headers = dict(record.headers() or [])
        if headers.get("ce_subject") == petition_id.encode():
            message = KafkaMessage(headers=headers, key=record.key(), value=record.value())
            found.append((record.key(), from_binary_event(message)))
    return found


@pytest.fixture
async def busy(system: System) -> Busy:
    """A petition of this test's own, with verified, duplicate and withdrawn signatures and a milestone."""
    petition = f"outside-{uuid.uuid4().hex[:8]}"
    await system.start_petition(petition, milestones=[3])
    ids = await system.surge(petition, range(5))
    await system.surge(petition, range(2), name="Once More")
    await system.decided(petition, 7)
    await system.counts_to(petition, 5)
    answer = await system.http.post(f"{system.ingest}/v1/signatures/{ids[0]}/withdraw", headers=system.admin)
    assert answer.status_code == 202
    await system.counts_to(petition, 4)
    return Busy(petition, ids)


async def test_every_event_on_every_topic_is_a_cloudevent_that_the_public_sdk_reads(busy: Busy, system: System) -> None:
    types = {}
    for topic in TOPICS:
        async with asyncio.timeout(30):  # snapshots come up to a quarter of a second later
            while not (events := await asyncio.to_thread(_events, system, busy.petition_id, topic)):
                await asyncio.sleep(0.2)
        for key, event in events:
            attributes = event.get_attributes()
            assert attributes["specversion"] == "1.0"
            assert attributes["id"]
            assert attributes["source"].startswith("/groundswell/")
            assert attributes["subject"] == busy.petition_id
            assert attributes["time"].utcoffset() is not None
            assert attributes["type"] in {known.TYPE for known in topic.events}
            assert isinstance(event.get_data(), dict)
            if topic.key == "petition id":
                assert key == busy.petition_id.encode()
            else:
                assert len(key) == 32
                assert b"@" not in key
        types[topic.name] = {event.get_attributes()["type"] for _, event in events}
    assert types["signatures.verified.v1"] == {
        "groundswell.signature.verified.v1",
        "groundswell.signature.revoked.v1",
    }
    assert types["signatures.submitted.v1"] == {"groundswell.signature.sign.v1", "groundswell.signature.withdraw.v1"}


async def test_a_subscriber_that_counts_facts_once_per_position_gets_our_count(busy: Busy, system: System) -> None:
    facts = {}
    for topic in TOPICS:
        if topic.name == "signatures.verified.v1":
            for _, event in await asyncio.to_thread(_events, system, busy.petition_id, topic):
                data = event.get_data()
                facts[data["lane"], data["position"]] = data
    standing = sum(fact["delta"] for fact in facts.values())
    assert standing == await system.count(busy.petition_id)
    assert {fact["signature_id"] for fact in facts.values()} >= set(busy.signature_ids)
