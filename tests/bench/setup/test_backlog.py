"""Backlogs have records that the services accept, and correct counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiokafka import ConsumerRecord

from services.tally.counting.handlers import decode as decode_fact
from shared.contract.events import SignCommand
from shared.contract.identity import canonical_email, signer_key
from shared.kafka.records.decode import by_type, read_event
from shared.kafka.records.record import Record
from tests.bench.setup import backlog

PEPPER = b"a pepper of the benchmark"


def _received(record: Record) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord("a topic", 0, 0, 0, 0, record.key, record.value, None, 0, 0, record.headers)


def test_submissions_are_commands_with_their_signers_key() -> None:
    for number in range(12):
        record = backlog.command(PEPPER, "ferry", number)
        event_id, command = read_event(_received(record), by_type(SignCommand))
        assert event_id == str(command.signature_id)
        key = signer_key(PEPPER, "ferry", canonical_email(command.email))
        assert record.key == key.hex.encode()


def test_what_must_count_is_the_number_of_signers_of_each_petition() -> None:
    counts: Counter[str] = Counter()
    records = list(backlog._commands(PEPPER, ["ferry", "bridge", "mill"], 3_000, 0.08, 0, counts))
    signers = {(record.key, dict(record.headers)["ce_subject"]) for record in records}
    assert Counter(petition.decode() for _, petition in signers) == counts
    assert 0.05 < 1 - len(signers) / len(records) < 0.11
    assert counts["ferry"] > counts["bridge"] > counts["mill"]


def test_two_fillings_share_signers_only_if_they_share_numbers() -> None:
    def keys(first: int) -> set[bytes | None]:
        return {record.key for record in backlog._commands(PEPPER, ["ferry"], 500, 0.08, first, Counter())}

    assert keys(0) == keys(0)
    assert not keys(0) & keys(500)


def test_facts_are_those_of_a_verify_that_owns_every_lane() -> None:
    counts: Counter[str] = Counter()
    last: dict[int, int] = {}
    for record in backlog._facts(["ferry", "bridge"], 500, 12, counts):
        fact = decode_fact(_received(record))
        assert fact["position"] == last.get(fact["lane"], 0) + 1
        last[fact["lane"]] = fact["position"]
    assert len(last) == 12
    assert counts.total() == 500
