"""The topics' contract: names, keys, what is kept."""

import inspect
from datetime import timedelta

from deploy.cli import prepare
from shared.contract import events
from shared.contract.events import Event, Organisation, Pause, PetitionState, Policy, Target
from shared.contract.topics import (
    CONSUMED,
    DEFAULT_PARTITIONS,
    DLQ_MAX_RECORD_BYTES,
    MAX_RECORD_BYTES,
    MILESTONES_REACHED,
    PETITIONS_CHANGED,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
    TOPICS,
    all_topics,
    max_record_bytes,
)


def test_the_topics_are_those_that_subscribers_are_told_of() -> None:
    assert [(topic.name, topic.key) for topic in TOPICS] == [
        ("signatures.submitted.v1", "signer key"),
        ("signatures.verified.v1", "petition id"),
        ("signatures.rejected.v1", "petition id"),
        ("petitions.changed.v1", "petition id"),
        ("tallies.updated.v1", "petition id"),
        ("milestones.reached.v1", "petition id"),
    ]


def test_personal_data_is_kept_a_week_and_facts_longer() -> None:
    assert SIGNATURES_SUBMITTED.retention == timedelta(days=7)
    assert SIGNATURES_VERIFIED.retention == SIGNATURES_REJECTED.retention == timedelta(days=30)
    assert MILESTONES_REACHED.retention == timedelta(days=365)


def test_whole_states_are_compacted() -> None:
    assert PETITIONS_CHANGED.config()["cleanup.policy"] == TALLIES_UPDATED.config()["cleanup.policy"] == "compact"
    assert "retention.ms" not in PETITIONS_CHANGED.config()


def test_every_topic_with_a_group_of_ours_has_dead_letters_that_are_kept_90_days_and_take_the_largest_record() -> None:
    by_name = {topic.name: topic for topic in all_topics()}
    assert len(by_name) == len(TOPICS) + len(CONSUMED)
    for topic in CONSUMED:
        letters = by_name[topic.dlq]
        assert letters.name == f"{topic.name}.dlq"
        assert letters.retention == timedelta(days=90)
        assert letters.config()["max.message.bytes"] == str(DLQ_MAX_RECORD_BYTES)
        assert max_record_bytes(letters.name) == letters.max_record_bytes > max_record_bytes(topic.name)
        assert max_record_bytes(topic.name) == MAX_RECORD_BYTES == topic.max_record_bytes


def test_every_event_is_on_exactly_one_topic() -> None:
    parts_of_events = {Organisation, Target, Policy, Pause, PetitionState}
    defined = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and "TYPE" in vars(kind)
    }
    placed = [event for topic in TOPICS for event in topic.events]
    assert len(placed) == len(set(placed))
    assert set(placed) == defined - parts_of_events


def test_no_two_events_share_a_type_and_each_type_ends_in_its_version() -> None:
    types = [event.TYPE for topic in TOPICS for event in topic.events]
    assert len(set(types)) == len(types)
    for name in types:
        assert name.startswith("groundswell.")
        assert name.rpartition(".v")[2].isdigit()


def test_the_command_makes_as_many_partitions_as_the_default_says() -> None:
    assert inspect.signature(prepare.topics_apply).parameters["partitions"].default == DEFAULT_PARTITIONS
