"""Decodes a record as one of its topic's events: the part of decoding that is the same for all topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from pydantic import TypeAdapter, ValidationError

from shared.contract.events import Event
from shared.contract.field_errors import field_errors
from shared.kafka.records.headers import NotACloudEvent, read_attributes
from shared.runtime.failures import InvalidRecord

T = TypeVar("T")
E = TypeVar("E", bound=Event)


def reader(form: type[T]) -> Callable[[bytes], T]:
    """Return a function that parses JSON as `form`, a model or a dataclass. It calls pydantic's validator directly: the
    overhead of a model's own method matters at a hundred thousand records a second."""
    read: Callable[[bytes], T] = TypeAdapter(form).validator.validate_json
    return read


def by_type(*events: type[E]) -> dict[str, Callable[[bytes], E]]:
    """Return the readers of `events` by CloudEvents type, for `read_event`."""
    return {event.TYPE: reader(event) for event in events}


def read_event(record: ConsumerRecord[Any, Any], events: Mapping[str, Callable[[bytes], T]]) -> tuple[str, T]:
    """Return a record's event id and its event.

    Args:
        record: The record.
        events: The readers of the topic's events, by type (`by_type`).

    Raises:
        InvalidRecord: the record is none of these events. The message says where it is wrong, without its content.
    """
    try:
        event_id, event_type = read_attributes(record.headers)
    except NotACloudEvent as error:
        raise InvalidRecord("not_a_cloud_event", str(error)) from None
    read = events.get(event_type)
    if read is None:
        raise InvalidRecord("unknown_type", "header ce_type names no event of this topic")
    if record.value is None:
        raise InvalidRecord("no_value", "an event needs a value")
    try:
        return event_id, read(record.value)
    except ValidationError as error:
        detail = "; ".join(f"{item['field']}: {item['problem']}" for item in field_errors(error))
        raise InvalidRecord("schema", detail) from None
