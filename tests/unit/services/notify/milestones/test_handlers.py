"""What notify takes for a milestone, and what goes to the dead letters."""

import json
from datetime import UTC, datetime

import pytest
from aiokafka import ConsumerRecord

from services.notify.milestones.handlers import decode
from shared.contract.events import MilestoneReached
from shared.contract.identity import milestone_id
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Headers
from shared.runtime.failures import InvalidRecord

REACHED = MilestoneReached(
    petition_id="night-ferry", threshold=1000, count=1003, revision=1010, reached_at=datetime(2026, 11, 22, tzinfo=UTC)
)


def record(
    value: bytes | None,
    headers: Headers | None = None,
    key: bytes | None = b"night-ferry",
    *,
    arrived: datetime | None = None,
) -> ConsumerRecord[bytes | None, bytes | None]:
    if headers is None:
        event_id = milestone_id("night-ferry", 1000)
        headers = event_headers(MilestoneReached, event_id=event_id, source="/groundswell/tally", subject="night-ferry")
    return ConsumerRecord(
        topic="milestones.reached.v1",
        partition=0,
        offset=7,
        timestamp=0 if arrived is None else int(arrived.timestamp() * 1000),
        timestamp_type=0 if arrived is None else 1,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=headers,
    )


def changed(**changes: object) -> bytes:
    return json.dumps({**REACHED.model_dump(mode="json"), **changes}).encode()


def test_a_milestone_is_read() -> None:
    assert decode(record(REACHED.model_dump_json().encode())) == REACHED


def test_a_field_that_a_later_version_added_is_ignored() -> None:
    assert decode(record(changed(mood="calm"))) == REACHED


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"", "schema"),
        (b"\xff secret", "schema"),
        (b'{"petition_id": "secret"}', "schema"),
        (changed(petition_id="no slug: secret"), "schema"),
        (changed(threshold="1000"), "schema"),
        (changed(petition_id="another-one"), "key"),
        (changed(threshold=2500), "event_id"),
        (changed(threshold=2**63), "out_of_range"),
        (changed(count=10**30), "out_of_range"),
        (changed(reached_at="0001-01-01T00:00:00+14:00"), "out_of_range"),
    ],
)
def test_what_is_no_milestone_has_a_reason_that_does_not_repeat_it(value: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidRecord) as invalid:
        decode(record(value))
    assert invalid.value.reason == reason
    assert "secret" not in str(invalid.value)


def test_a_milestone_of_a_later_day_is_none() -> None:
    arrived = datetime(2026, 11, 22, tzinfo=UTC)
    assert decode(record(changed(reached_at="2026-11-23T12:00:00Z"), arrived=arrived))
    with pytest.raises(InvalidRecord, match="out_of_range"):
        decode(record(changed(reached_at="2026-11-25T12:00:00Z"), arrived=arrived))


@pytest.mark.parametrize("key", [None, b"", b"another-petition", b"night-ferry ", b"\xff"])
def test_a_milestone_under_another_key_than_its_petition_is_none(key: bytes | None) -> None:
    with pytest.raises(InvalidRecord, match="the record key must be the petition id"):
        decode(record(changed(), key=key))


def test_a_record_without_the_headers_of_an_event_is_none() -> None:
    with pytest.raises(InvalidRecord, match="not_a_cloud_event"):
        decode(record(changed(), headers=[]))


def test_another_event_on_this_topic_is_not_taken_for_a_milestone() -> None:
    headers = [(name, b"groundswell.other.v1" if name == "ce_type" else value) for name, value in record(b"").headers]

    with pytest.raises(InvalidRecord, match="unknown_type"):
        decode(record(changed(), headers=headers))
