"""Dead letters: the untouched record, and why it is one."""

from datetime import UTC, datetime

from aiokafka import ConsumerRecord

from shared.contract.topics import DLQ_MAX_RECORD_BYTES, SIGNATURES_SUBMITTED
from shared.kafka.consuming.dead_letters import DeadLetter, dead_letter, dead_letter_headers
from shared.kafka.producing.producer import fits
from shared.runtime.failures import InvalidRecord

ERROR = InvalidRecord("schema", "email: is missing")
OWN = (("ce_id", b"1"), ("odd", None), ("odd", b"\xff"))


def letter(value: bytes | None, *, key: bytes | None = b"key", error: InvalidRecord = ERROR) -> DeadLetter:
    record = ConsumerRecord(SIGNATURES_SUBMITTED.name, 7, 42, 0, 0, key, value, None, 3, 5, OWN)
    return DeadLetter(record, error)


def test_the_record_is_untouched_and_its_headers_are_followed_by_ours() -> None:
    written = dead_letter(letter(b"{oops"), SIGNATURES_SUBMITTED.dlq)
    assert (written.key, written.value) == (b"key", b"{oops")
    assert tuple(written.headers[:3]) == OWN
    ours = dict(written.headers[3:])
    assert datetime.fromisoformat(ours.pop("dlq_time").decode()) <= datetime.now(UTC)
    assert ours == {
        "dlq_reason": b"schema",
        "dlq_exception": b"schema: email: is missing",
        "dlq_source_topic": b"signatures.submitted.v1",
        "dlq_source_partition": b"7",
        "dlq_source_offset": b"42",
    }


def test_a_record_without_key_or_value_stays_without() -> None:
    written = dead_letter(letter(None, key=None), SIGNATURES_SUBMITTED.dlq)
    assert (written.key, written.value) == (None, None)


def test_a_long_reason_is_cut() -> None:
    long = letter(b"", error=InvalidRecord("schema", "x" * 10_000))
    assert len(dict(dead_letter_headers(long))["dlq_exception"]) == 2000


def test_a_record_that_is_larger_than_any_letter_leaves_a_letter_that_says_where_it_stands() -> None:
    written = dead_letter(letter(b"x" * (DLQ_MAX_RECORD_BYTES + 1)), SIGNATURES_SUBMITTED.dlq)
    assert fits(SIGNATURES_SUBMITTED.dlq, written)
    headers = dict(written.headers)
    assert str(DLQ_MAX_RECORD_BYTES + 1).encode() in headers["dlq_omitted"]
    assert headers["dlq_reason"] == b"schema"
    assert headers["dlq_source_offset"] == b"42"
    assert "ce_id" not in headers
