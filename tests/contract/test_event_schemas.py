"""What is on the topics stays readable: events of today's golden files, and whoever subscribes to them."""

import copy
import json
from typing import Any

import pytest

from shared.events import Event
from shared.topics import TOPICS
from tests.contract.compatibility import breaks
from tests.contract.golden_events import EXAMPLES, golden, golden_file

BY_NAME = {type(example).__name__: example for example in EXAMPLES}
SCHEMA: dict[str, Any] = golden(BY_NAME["SignatureVerified"])["schema"]


@pytest.mark.parametrize("name", BY_NAME)
def test_an_event_that_was_written_earlier_is_read_and_says_the_same(name: str) -> None:
    example = BY_NAME[name]
    written = json.loads(golden_file(type(example)).read_text(encoding="utf-8"))["event"]
    assert type(example).model_validate_json(json.dumps(written)) == example


@pytest.mark.parametrize("name", BY_NAME)
def test_an_events_schema_has_not_changed_in_a_way_that_breaks_readers(name: str) -> None:
    example = BY_NAME[name]
    kept = json.loads(golden_file(type(example)).read_text(encoding="utf-8"))["schema"]
    assert breaks(kept, golden(example)["schema"]) == []


def test_every_event_of_every_topic_has_a_golden_file() -> None:
    events: set[type[Event]] = {event for topic in TOPICS for event in topic.events}
    assert events == {type(example) for example in EXAMPLES}


def _changed(change: Any) -> list[str]:
    new = copy.deepcopy(SCHEMA)
    change(new)
    return breaks(SCHEMA, new)


def test_a_removed_field_breaks_readers() -> None:
    assert _changed(lambda schema: schema["properties"].pop("country")) == [".country: is gone"]


def test_a_renamed_field_breaks_readers() -> None:
    assert _changed(lambda schema: schema["properties"].update(land=schema["properties"].pop("country")))


def test_a_retyped_field_breaks_readers() -> None:
    assert _changed(lambda schema: schema["properties"]["position"].update(type="string"))


def test_a_newly_required_field_breaks_events_that_were_written_without_it() -> None:
    assert _changed(lambda schema: schema["required"].append("delta")) == [".delta: is required now"]


def test_a_narrowed_range_breaks_events_beyond_it() -> None:
    assert _changed(lambda schema: schema["properties"]["lane"].update(minimum=1))
    assert _changed(lambda schema: schema["properties"]["lane"].update(maximum=11))


def test_another_meaning_of_a_constant_breaks_readers() -> None:
    assert _changed(lambda schema: schema["properties"]["delta"].update(const=2))


def test_a_new_optional_field_and_a_wider_range_break_nobody() -> None:
    assert _changed(lambda schema: schema["properties"].update(channel={"type": "string"})) == []
    assert _changed(lambda schema: schema["properties"]["position"].update(minimum=0)) == []


def test_a_change_deep_inside_a_petition_is_seen() -> None:
    kept = golden(BY_NAME["PetitionChanged"])["schema"]
    new = copy.deepcopy(kept)
    del new["$defs"]["Target"]["properties"]["kind"]
    assert breaks(kept, new) == [".targets[].kind: is gone"]
