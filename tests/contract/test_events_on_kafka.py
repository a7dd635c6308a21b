"""Every event as a record on a real broker: another client library reads it, and the public CloudEvents SDK parses it."""

import asyncio
import json
from datetime import UTC, datetime

import confluent_kafka
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.events import Event
from shared.contract.topics import Topic
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from tests.contract.golden_events import EXAMPLES
from tests.support.consuming import new_topic, settings_for

SOURCE = "/groundswell/contract"
MOMENT = datetime(2026, 11, 22, 10, 42, 7, 125000, tzinfo=UTC)


@pytest.fixture(scope="module")
async def topic(kafka: KafkaBroker) -> Topic:
    """A topic with every example on it."""
    topic = await new_topic(kafka)
    producer = EventProducer(settings_for(kafka))
    await producer.start()
    await producer.publish_in_order(topic.name, [_record(number, event) for number, event in enumerate(EXAMPLES)])
    await producer.stop()
    return topic


def _record(number: int, event: Event) -> Record:
    headers = event_headers(type(event), event_id=f"id-{number}", source=SOURCE, subject="night-bus", time=MOMENT)
    return Record(b"night-bus", event.model_dump_json().encode(), headers)


@pytest.fixture(scope="module")
async def messages(kafka: KafkaBroker, topic: Topic) -> dict[str, KafkaMessage]:
    """The records by their event's type, read with librdkafka."""

    def read() -> dict[str, KafkaMessage]:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "stranger"})
        try:
            consumer.assign([confluent_kafka.TopicPartition(topic.name, 0, 0)])
            found: dict[str, KafkaMessage] = {}
            while len(found) < len(EXAMPLES):
                record = consumer.poll(10)
                assert record is not None
                assert record.error() is None
                headers = dict(record.headers())
                found[headers["ce_type"].decode()] = KafkaMessage(headers, record.key(), record.value())
            return found
        finally:
            consumer.close()

    return await asyncio.to_thread(read)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[type(example).__name__ for example in EXAMPLES])
def test_the_public_sdk_reads_the_attributes_and_the_data(messages: dict[str, KafkaMessage], number: int) -> None:
    example = EXAMPLES[number]
    message = messages[type(example).TYPE]
    assert message.key == b"night-bus"

    event = from_binary_event(message)

    assert event.get_specversion() == "1.0"
    assert event.get_id() == f"id-{number}"
    assert event.get_type() == type(example).TYPE
    assert event.get_source() == SOURCE
    assert event.get_subject() == "night-bus"
    assert event.get_time() == MOMENT
    assert event.get_datacontenttype() == "application/json"
    data = event.get_data()  # in binary mode the record's value is the data and nothing else
    assert isinstance(data, dict)
    assert data == json.loads(example.model_dump_json())
    assert type(example).model_validate_json(json.dumps(data)) == example
