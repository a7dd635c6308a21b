"""AsyncAPI documents: of a service, with the topics that it reads and writes; of the whole system, with all topics.

FastStream's document names the topics that a service reads and writes, as registered in `shared.kafka.registration`. Their
content is defined once, in `shared.contract.topics`; here it becomes one message per event, with CloudEvents headers, key
and payload. FastStream itself has one schema per topic, without headers and key.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from faststream.specification import AsyncAPI, Specification
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from pydantic.json_schema import models_json_schema

from shared.contract.events import Event
from shared.contract.topics import Topic, all_topics

_TOPICS: Final = {topic.name: topic for topic in all_topics()}

_KAFKA_BINDING: Final = "0.4.0"

_CLOUD_EVENT: Final = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": {"type": "string", "description": "Unique within ce_source; every copy of the same event has the same."},
    "ce_source": {"type": "string", "format": "uri-reference", "description": "The service that says so."},
    "ce_subject": {"type": "string", "description": "The petition's id."},
    "ce_time": {"type": "string", "format": "date-time", "description": "When it happened."},
    "content-type": {"const": "application/json"},
}

_DEAD_LETTER: Final = {
    "dlq_reason": {"type": "string", "description": "A code: what is wrong with the record."},
    "dlq_exception": {"type": "string", "description": "The same in words, without the record's content."},
    "dlq_source_topic": {"type": "string"},
    "dlq_source_partition": {"type": "string", "pattern": "^[0-9]+$"},
    "dlq_source_offset": {"type": "string", "pattern": "^[0-9]+$"},
    "dlq_time": {"type": "string", "format": "date-time", "description": "When it was moved."},
}


class TopicsDocument(AsyncAPI):
    """FastStream's document, with the content of the topics from `shared.contract.topics`.

    It has one channel per topic, also if a service both reads and writes it, and names without blanks and colons: the
    specification allows only letters, digits, ``.``, ``-`` and ``_`` in the keys of components.
    """

    _document: Specification | None = None

    def to_specification(self) -> Specification:
        """Return the document. It is built once: subscribers and publishers are registered before the first request.

        Raises:
            KeyError: a registered topic is not in `shared.contract.topics`.
        """
        if self._document is None:
            self._document = ApplicationSchema.model_validate(_filled(super().to_specification().to_jsonable()))
        return self._document


def _filled(document: dict[str, Any]) -> dict[str, Any]:
    """Add the content of the topics to FastStream's document."""
    # FastStream calls a single server "development", even in production.
    servers = {f"kafka{n}": server for n, server in enumerate(document["servers"].values(), 1)}
    used = sorted(
        {(operation["action"], _address(document, operation)) for operation in document["operations"].values()}
    )
    contents = _contents(used, servers=[{"$ref": f"#/servers/{name}"} for name in servers])
    contents["components"]["securitySchemes"] = document["components"].get("securitySchemes")
    return {**document, "servers": servers, **contents}


def _address(document: dict[str, Any], operation: dict[str, Any]) -> str:
    name = unquote(operation["channel"]["$ref"].removeprefix("#/channels/"))
    address: str = document["channels"][name]["address"]
    return address


def system_document(version: str) -> dict[str, Any]:
    """Return the document of all topics, for subscribers. It names no servers.

    Args:
        version: The version of Groundswell.
    """
    return {
        "info": {
            "title": "Groundswell",
            "version": version,
            "description": (
                "The topics of Groundswell. Delivery is at least once. Ignore fields, event types and values that you do"
                " not know: they are added without a new version. Topics for others are compressed with gzip. Only"
                " Groundswell may write to any of these topics."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "asyncapi": "3.0.0",
        "defaultContentType": "application/json",
        **_contents([("send", name) for name in _TOPICS]),
    }


def _contents(used: Sequence[tuple[str, str]], **of_channels: Any) -> dict[str, dict[str, Any]]:
    """Return channels, operations and components of a document.

    Args:
        used: Pairs of an action, ``receive`` or ``send``, and a topic's name.
        of_channels: Further fields of every channel.
    """
    topics = [topic for name, topic in _TOPICS.items() if name in {name for _, name in used}]
    return {
        "channels": {topic.name: _channel(topic) | of_channels for topic in topics},
        "operations": {f"{action}.{name}": _operation(action, _TOPICS[name]) for action, name in used},
        "components": {
            "messages": {name: message for topic in topics for name, message in _messages(topic).items()},
            "schemas": _schemas(topics),
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    kept = f"Kept {topic.retention.days} days" if topic.retention else "Compacted: the last record of each key stays"
    internal = " Internal: not for others; it may change in any version." if topic.internal else ""
    return {
        "address": topic.name,
        "description": f"{topic.holds[0].upper()}{topic.holds[1:]}. Key: {topic.key}. {kept}.{internal}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
        "bindings": {"kafka": {"topic": topic.name, "bindingVersion": _KAFKA_BINDING}},
    }


def _operation(action: str, topic: Topic) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _messages(topic)],
    }


def _messages(topic: Topic) -> dict[str, dict[str, Any]]:
    """Return the messages of a topic by name: its events, or dead letters."""
    if not topic.events:
        return {f"DeadLetter.{topic.name}": _dead_letter(topic)}
    return {event.__name__: _message(event, topic) for event in topic.events}


def _message(event: type[Event], topic: Topic) -> dict[str, Any]:
    headers = {**_CLOUD_EVENT, "ce_type": {"const": event.TYPE}}
    return {
        "title": event.__name__,
        "name": event.TYPE,
        "summary": inspect.cleandoc(event.__doc__ or "").partition("\n\n")[0],
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "headers": {"type": "object", "required": sorted(headers), "properties": headers},
        "bindings": _key(topic),
    }


def _dead_letter(topic: Topic) -> dict[str, Any]:
    return {
        "title": "Dead letter",
        "name": topic.name,
        "summary": f"One of the {topic.holds}.",
        "contentType": "application/octet-stream",
        "payload": {"description": "The bytes of the record that could not be read."},
        "headers": {
            "type": "object",
            "required": sorted(_DEAD_LETTER),
            "properties": _DEAD_LETTER,
            "description": "The headers of the record that could not be read, and these.",
        },
        "bindings": _key(topic),
    }


def _key(topic: Topic) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": _KAFKA_BINDING}}


def _schemas(topics: Iterable[Topic]) -> dict[str, dict[str, Any]]:
    """Return the schemas of the payloads and of the models in them.

    They are the guarantees for readers: a field with a default was added later and is not required, because older records
    lack it.
    """
    events = [event for topic in topics for event in topic.events]
    _, schemas = models_json_schema(
        [(event, "validation") for event in events], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, dict[str, Any]] = schemas.get("$defs", {})
    return definitions
