"""Dead letters: records that cannot be read or applied, copied unchanged to ``<topic>.dlq`` with the reason in headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord

from shared.kafka.fetching.unreadable import Unreadable
from shared.kafka.producing.producer import EventProducer, fits
from shared.kafka.records.record import Headers, Record
from shared.runtime.failures import InvalidRecord


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record and why it could not be read or applied."""

    record: ConsumerRecord[Any, Any]
    error: InvalidRecord


def dead_letter_headers(letter: DeadLetter) -> Headers:
    """Return the record's own headers, then ours: ``dlq_reason``, ``dlq_exception``, source coordinates, time of the move.

    The exception's text never holds the record's content: `InvalidRecord` is made without it.

    Headers whose name is not UTF-8 are omitted, because no Python client could read the dead letter. ``dlq_raw_headers``
    has all of the record's headers, encoded as in the record.
    """
    record = letter.record
    return [
        *record.headers,
        ("dlq_reason", letter.error.reason.encode()),
        ("dlq_exception", str(letter.error)[:2000].encode()),
        ("dlq_source_topic", record.topic.encode()),
        ("dlq_source_partition", str(record.partition).encode()),
        ("dlq_source_offset", str(record.offset).encode()),
        ("dlq_time", datetime.now(UTC).isoformat().encode()),
        *_unreadable_headers(record),
    ]


def _unreadable_headers(record: ConsumerRecord[Any, Any]) -> Headers:
    if not isinstance(record, Unreadable):
        return []
    if record.is_batch:
        return [("dlq_source_first_offset", str(record.first_offset).encode())]
    return [("dlq_raw_headers", record.raw_headers)] if record.raw_headers else []


def dead_letter(letter: DeadLetter, dlq_topic: str) -> Record:
    """Return the record to write to the dead-letter topic: the original with the reason.

    Kafka limits the compressed size, so a record may be larger than any limit once it is decompressed. Such a record cannot
    be written again: its dead letter gives its source coordinates only, and it stays there until the source's retention
    ends.
    """
    headers = dead_letter_headers(letter)
    record = Record(letter.record.key, letter.record.value, headers)
    if fits(dlq_topic, record):
        return record
    omitted = f"key, value and headers, {len(letter.record.value or b'')} bytes of value: too large for this topic"
    return Record(None, b"", [*headers[len(letter.record.headers) :], ("dlq_omitted", omitted.encode())])


async def publish_dead_letters(producer: EventProducer, dlq_topic: str, letters: Sequence[DeadLetter]) -> None:
    """Publish dead letters and wait for all acknowledgements. A redelivery publishes them again, with the same coordinates.

    Raises:
        aiokafka.errors.KafkaError: a dead letter was not acknowledged.
    """
    await producer.publish_in_order(dlq_topic, [dead_letter(letter, dlq_topic) for letter in letters])
