"""Events stay compatible: today's code reads the golden files, and subscribers can read what it writes."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deploy.generated import EVENTS, ROOT, event_schema
from shared.contract.events import Event
from shared.contract.topics import TOPICS
from tests.contract.compatibility import breaks
from tests.contract.golden_events import EXAMPLES, golden, golden_file

BY_NAME = {type(example).__name__: example for example in EXAMPLES}
PUBLISHED: Path = ROOT / EVENTS
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


@pytest.mark.parametrize("name", BY_NAME)
def test_an_event_that_was_written_earlier_follows_the_published_schema_of_its_type(name: str) -> None:
    example = BY_NAME[name]
    schema = published(type(example))
    assert schema == event_schema(type(example))
    assert schema["$id"] == f"urn:groundswell:event:{example.TYPE}"
    Draft202012Validator.check_schema(schema)
    written = json.loads(golden_file(type(example)).read_text(encoding="utf-8"))["event"]
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(written)
    for field in schema["required"]:
        without = {key: value for key, value in written.items() if key != field}
        assert not Draft202012Validator(schema).is_valid(without), f"{field} is required"


@pytest.mark.parametrize("name", BY_NAME)
def test_the_published_schema_says_of_every_field_what_it_means(name: str) -> None:
    schema = published(type(BY_NAME[name]))
    objects = {name: schema, **schema.get("$defs", {})}
    assert [path for owner, one in objects.items() for path in undescribed(owner, one)] == []


def published(event: type[Event]) -> dict[str, Any]:
    """The schema that subscribers find in the folder of events."""
    schema: dict[str, Any] = json.loads((PUBLISHED / f"{event.TYPE}.json").read_text(encoding="utf-8"))
    return schema


def undescribed(owner: str, schema: dict[str, Any]) -> Iterator[str]:
    """The object itself, and its fields, as far as nothing is said of them."""
    for path, one in [(owner, schema), *((f"{owner}.{name}", one) for name, one in schema["properties"].items())]:
        if not one.get("description", "").strip():
            yield path


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


def test_a_field_that_may_be_missing_from_now_on_breaks_readers() -> None:
    assert _changed(lambda schema: schema["required"].remove("lane")) == [".lane: may be missing now"]


def test_a_field_that_may_be_null_from_now_on_breaks_readers() -> None:
    def change(schema: dict[str, Any]) -> None:
        schema["properties"]["country"] = {"anyOf": [schema["properties"]["country"], {"type": "null"}]}

    assert _changed(change)


def test_a_shorter_list_of_values_breaks_events_with_the_others() -> None:
    kept = golden(BY_NAME["SignatureRejected"])["schema"]
    new = copy.deepcopy(kept)
    new["properties"]["outcome"]["enum"].remove("duplicate")
    assert breaks(kept, new) == [".outcome: no longer takes ['duplicate']"]


def test_a_schema_that_takes_no_other_fields_breaks_the_next_version_of_itself() -> None:
    assert _changed(lambda schema: schema.update(additionalProperties=False)) == [
        "the event: no longer takes other fields"
    ]


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
