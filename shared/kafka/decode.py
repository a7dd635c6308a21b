"""Reading one record as one of a topic's events: the part of decoding that is the same for every topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from shared.events import Event
from shared.http import field_errors
from shared.kafka.errors import InvalidRecord
from shared.kafka.headers import NotACloudEvent, read_attributes

E = TypeVar("E", bound=Event)


def by_type(*events: type[E]) -> dict[str, type[E]]:
    """Events by their CloudEvents type, as `read_event` takes them."""
    return {event.TYPE: event for event in events}


def read_event(record: ConsumerRecord[Any, Any], events: Mapping[str, type[E]]) -> tuple[str, E]:
    """The event's id and the event.

    Args:
        events: The topic's events by their type.

    Raises:
        InvalidRecord: the record is none of them. The message says where it is wrong and never holds its content.
    """
    try:
        attributes = read_attributes(record.headers)
    except NotACloudEvent as error:
        raise InvalidRecord("not_a_cloud_event", str(error)) from None
    event_type = events.get(attributes.type)
    if event_type is None:
        raise InvalidRecord("unknown_type", "header ce_type names no event of this topic")
    if record.value is None:
        raise InvalidRecord("no_value", "an event needs a value")
    try:
        return attributes.id, event_type.model_validate_json(record.value)
    except ValidationError as error:
        detail = "; ".join(f"{item['field']}: {item['problem']}" for item in field_errors(error))
        raise InvalidRecord("schema", detail) from None
