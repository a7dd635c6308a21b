"""The independent reader of the topics: what it keeps of records, and which contradictions it notices."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Message

from shared.contract.events import (
    Event,
    MilestoneReached,
    SignatureRejected,
    SignatureVerified,
    SignCommand,
    TallyUpdated,
)
from shared.contract.topics import (
    MILESTONES_REACHED,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
)
from shared.kafka.records.headers import event_headers
from tests.faults.judging.personal import PersonalData
from tests.faults.notes import digest_of
from tests.faults.watching.seen import Reading

HOT = "run001-hot"
MOMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)
PERSONAL = PersonalData({"lakepost.example"}, {"Alma Ashberg"}, {"ADMIN_TOKEN": "correct-horse"})


@pytest.fixture
def reading() -> Reading:
    return Reading("run001-", PERSONAL)


def _record(
    topic: str, event: Event, event_id: str, *, key: str = HOT, offset: int = 0, partition: int = 0, **extra: Any
) -> Message:
    headers = event_headers(type(event), event_id=event_id, source="/test", subject=HOT, time=MOMENT)
    value = json.dumps({**json.loads(event.model_dump_json()), **extra}).encode()
    return Message(
        topic=topic, partition=partition, offset=offset, key=key.encode(), value=value, headers=list(headers)
    )


def _fact(number: int, position: int, *, event: int | None = None, petition_id: str = HOT, lane: int = 0) -> Message:
    fact = SignatureVerified(
        signature_id=UUID(int=number),
        petition_id=petition_id,
        lane=lane,
        position=position,
        country="NL",
        signed_at=MOMENT,
        occurred_at=MOMENT,
    )
    name = str(UUID(int=number if event is None else event))
    return _record(SIGNATURES_VERIFIED.name, fact, name, key=petition_id)


def _rejection(reason: str) -> Message:
    event = SignatureRejected(
        signature_id=UUID(int=1), petition_id=HOT, outcome="duplicate", reason=reason, submitted_at=MOMENT
    )
    return _record(SIGNATURES_REJECTED.name, event, "rejection")


def _command(**headers: bytes) -> Message:
    command = SignCommand(
        signature_id=UUID(int=1),
        petition_id=HOT,
        email="alma@lakepost.example",
        name="Alma Ashberg",
        country="NL",
        submitted_at=MOMENT,
    )
    return _record(SIGNATURES_SUBMITTED.name, command, str(UUID(int=1)), key="ab" * 16, offset=5)


def test_facts_are_kept_by_their_place_in_the_ledger(reading: Reading) -> None:
    reading.take(_fact(1, 1))
    reading.take(_fact(2, 2))

    assert set(reading.seen.facts) == {(0, 1), (0, 2)}
    assert reading.seen.decided == {str(UUID(int=1)), str(UUID(int=2))}
    assert reading.seen.contradictions == {}


def test_a_redelivered_fact_is_a_repeat_and_no_contradiction(reading: Reading) -> None:
    for position in (1, 2, 3, 1, 2, 3):
        reading.take(_fact(position, position))

    assert reading.seen.repeats[SIGNATURES_VERIFIED.name] == 3
    assert reading.seen.contradictions == {}


def test_a_position_that_first_appears_after_a_higher_one_is_noticed(reading: Reading) -> None:
    reading.take(_fact(1, 1))
    reading.take(_fact(3, 3))
    reading.take(_fact(2, 2))

    assert list(reading.seen.contradictions) == ["a position that appeared after a higher one"]


def test_other_lanes_and_other_partitions_do_not_disturb_a_lane_s_order(reading: Reading) -> None:
    reading.take(_fact(9, 9, lane=1))
    reading.take(_fact(1, 1))

    assert reading.seen.contradictions == {}


def test_two_facts_at_one_position_are_noticed(reading: Reading) -> None:
    reading.take(_fact(1, 1))
    reading.take(_fact(2, 1))

    assert list(reading.seen.contradictions) == ["two facts at one (lane, position)"]


def test_an_event_at_two_positions_is_noticed(reading: Reading) -> None:
    reading.take(_fact(1, 1))
    reading.take(_fact(1, 2))

    assert list(reading.seen.contradictions) == ["an event at two positions"]


def test_a_signature_that_was_refused_for_two_reasons_is_noticed(reading: Reading) -> None:
    reading.take(_rejection("already_signed"))
    reading.take(_rejection("already_signed"))
    assert reading.seen.contradictions == {}

    reading.take(_rejection("name_invalid"))
    assert list(reading.seen.contradictions) == ["two different rejections of a signature"]


def test_facts_of_earlier_runs_are_set_apart(reading: Reading) -> None:
    reading.take(_fact(1, 1, petition_id="run000-hot"))

    assert reading.seen.facts == {}
    assert reading.seen.earlier == {(0, 1): str(UUID(int=1))}


def test_a_key_that_is_not_the_petition_is_noticed(reading: Reading) -> None:
    event = MilestoneReached(petition_id=HOT, threshold=3, count=3, revision=3, reached_at=MOMENT)
    reading.take(_record(MILESTONES_REACHED.name, event, "m", key="run001-side"))

    assert list(reading.seen.contradictions) == ["key on milestones.reached.v1 that is not the petition"]
    assert [found.threshold for found in reading.seen.milestones] == [3]


def test_a_record_that_is_no_event_is_noticed(reading: Reading) -> None:
    reading.take(Message(topic=TALLIES_UPDATED.name, partition=0, offset=0, key=b"x", value=b"rubbish", headers=[]))

    assert list(reading.seen.contradictions) == ["unreadable record on tallies.updated.v1"]


def test_snapshots_are_kept_in_the_order_of_the_topic(reading: Reading) -> None:
    for offset, count in enumerate((1, 3, 2)):
        snapshot = TallyUpdated(
            petition_id=HOT,
            count=count,
            revision=count,
            countries={"NL": count},
            minutes={},
            earlier=count,
            updated_at=MOMENT,
        )
        reading.take(_record(TALLIES_UPDATED.name, snapshot, str(offset), offset=offset))

    assert [found.revision for found in reading.seen.snapshots[HOT, 0]] == [1, 3, 2]
    last = reading.seen.last_snapshot(HOT)
    assert last is not None
    assert (last.count, last.countries, last.minutes) == (2, 2, 2)


def test_of_a_command_only_the_place_is_kept_and_its_content_is_no_leak(reading: Reading) -> None:
    reading.take(_command())

    assert reading.seen.commands == {str(UUID(int=1)): [(SIGNATURES_SUBMITTED.name, 0, 5)]}
    assert reading.seen.leaks == []


def test_a_dead_letter_is_known_by_its_source_and_compared_without_our_headers(reading: Reading) -> None:
    own: list[tuple[str, bytes]] = [("ce_id", b"1"), ("ce_id", b"2")]
    ours = [
        ("dlq_reason", b"schema"),
        ("dlq_source_topic", b"signatures.submitted.v1"),
        ("dlq_source_partition", b"3"),
        ("dlq_source_offset", b"41"),
    ]
    record = Message(topic=SIGNATURES_SUBMITTED.dlq, partition=0, offset=0, key=None, value=b"", headers=[*own, *ours])
    reading.take(record)

    (letter,) = reading.seen.dead_letters
    assert letter.source == ("signatures.submitted.v1", 3, 41)
    assert letter.reason == "schema"
    assert letter.digest == digest_of(None, b"", own)
    assert letter.digest != digest_of(None, None, own)
    assert letter.digest != digest_of(None, b"", own[::-1])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("alma.ashberg7@lakepost.example", "a signer's e-mail address"),
        ("mail for <ALMA@LAKEPOST.EXAMPLE>.", "a signer's e-mail address"),
        ("Dear Alma Ashberg,", "a signer's name"),
        ("authorization: Bearer correct-horse", "the secret ADMIN_TOKEN"),
        ("council@run001-hot.test", None),
        ("nobody of that name: Alma", None),
    ],
)
def test_personal_data_is_found_wherever_it_stands(content: str, found: str | None) -> None:
    assert PERSONAL.find(content) == found
    assert PERSONAL.find(content.encode()) == found


def test_personal_data_in_a_key_a_header_or_a_fact_is_a_leak(reading: Reading) -> None:
    reading.take(_fact(1, 1, petition_id="run000-hot"))
    assert reading.seen.leaks == []
    leak = b"alma@lakepost.example"
    for topic, key, value, headers in (
        (SIGNATURES_SUBMITTED.name, leak, b"", []),
        (SIGNATURES_SUBMITTED.dlq, None, b"", [("dlq_exception", leak)]),
        (SIGNATURES_VERIFIED.name, b"run000-x", leak, []),
        (TALLIES_UPDATED.name, b"run000-x", b"{}", [("ce_subject", leak)]),
    ):
        reading.take(Message(topic=topic, partition=0, offset=0, key=key, value=value, headers=[*headers]))

    assert len(reading.seen.leaks) == 4


def test_a_dead_letter_may_hold_what_was_typed(reading: Reading) -> None:
    headers: list[tuple[str, bytes]] = [("ce_subject", b"alma@lakepost.example")]
    reading.take(
        Message(
            topic=SIGNATURES_SUBMITTED.dlq, partition=0, offset=0, key=None, value=b"Alma Ashberg", headers=[*headers]
        )
    )

    assert reading.seen.leaks == []
