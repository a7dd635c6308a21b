"""CloudEvents attributes in Kafka headers. That the public SDK reads them is in tests/contract."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from shared.contract.events import SignatureVerified
from shared.kafka.records.headers import NotACloudEvent, event_headers, read_attributes

EVENT_ID = UUID("019356a0-0000-7000-8000-000000000001")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WHOLE = event_headers(
    SignatureVerified, event_id=EVENT_ID, source="/groundswell/verify", subject="save-the-harbour", time=NOON
)


def test_an_event_has_the_headers_of_the_kafka_binding() -> None:
    assert WHOLE == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"019356a0-0000-7000-8000-000000000001"),
        ("ce_source", b"/groundswell/verify"),
        ("ce_type", b"groundswell.signature.verified.v1"),
        ("ce_subject", b"save-the-harbour"),
        ("ce_time", b"2026-11-22T12:00:00+00:00"),
        ("content-type", b"application/json"),
    ]


def test_an_event_without_a_time_of_its_own_happens_now() -> None:
    before = datetime.now(UTC)
    headers = dict(event_headers(SignatureVerified, event_id="1", source="/s", subject="p"))
    assert before <= datetime.fromisoformat(headers["ce_time"].decode()) <= datetime.now(UTC)


def test_what_was_written_is_read_back() -> None:
    assert read_attributes(WHOLE) == (str(EVENT_ID), SignatureVerified.TYPE)


def test_order_and_other_headers_do_not_matter() -> None:
    assert read_attributes([("traceparent", b"\xff"), *reversed(WHOLE), ("x", None)]) == read_attributes(WHOLE)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "ce_specversion"),
        ([("ce_specversion", b"0.3"), *WHOLE[1:]], "ce_specversion"),
        ([("ce_specversion", None), *WHOLE[1:]], "ce_specversion"),
        ([header for header in WHOLE if header[0] != "ce_id"], "ce_id"),
        ([header for header in WHOLE if header[0] != "ce_type"], "ce_type"),
        ([*WHOLE, ("ce_id", b"")], "ce_id"),
        ([*WHOLE, ("ce_type", None)], "ce_type"),
        ([*WHOLE, ("ce_type", b"\xff\xfe")], "UTF-8"),
        ([*WHOLE, ("ce_id", b"CANARY\xff")], "UTF-8"),
    ],
)
def test_a_record_without_sound_attributes_is_refused_without_its_content(
    headers: list[tuple[str, bytes | None]], message: str
) -> None:
    with pytest.raises(NotACloudEvent, match=message) as failure:
        read_attributes(headers)
    assert "CANARY" not in str(failure.value)
    assert failure.value.__suppress_context__ or failure.value.__context__ is None
