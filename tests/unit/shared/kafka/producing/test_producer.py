"""Where a key goes, and what fits. What happens on a broker is in tests/integration."""

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from shared.contract.topics import MAX_RECORD_BYTES, SIGNATURES_SUBMITTED
from shared.kafka.producing.producer import EventProducer, fits, require_fits
from shared.kafka.records.record import Headers, Record
from shared.runtime.settings import CommonSettings

HEADERS: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"1")]


def test_a_record_fits_up_to_what_the_topic_takes_with_its_key_and_headers() -> None:
    topic = SIGNATURES_SUBMITTED.name
    assert fits(topic, Record(b"key", b"x" * (MAX_RECORD_BYTES - 500), HEADERS))
    too_large = Record(b"key", b"x" * (MAX_RECORD_BYTES - 10), HEADERS)
    assert not fits(topic, too_large)
    assert fits(SIGNATURES_SUBMITTED.dlq, too_large)
    assert not fits(topic, Record(b"k" * MAX_RECORD_BYTES, b"", []))
    assert not fits(topic, Record(None, b"", [("h", b"x" * MAX_RECORD_BYTES)]))
    with pytest.raises(MessageSizeTooLargeError, match=str(MAX_RECORD_BYTES)):
        require_fits(topic, too_large)


def test_a_record_without_key_value_or_header_values_fits() -> None:
    assert fits("topic", Record(None, None, [("empty", None)]))  # type: ignore[list-item]


async def test_a_producer_that_has_not_reached_kafka_says_so_with_an_error_that_passes() -> None:
    producer = EventProducer(CommonSettings())
    assert not producer.started
    assert await producer.check() == "Kafka has not answered yet"
    with pytest.raises(KafkaConnectionError):
        await producer.publish("topic", Record(b"key", b"value", []))
    await producer.stop()
