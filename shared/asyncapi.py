"""AsyncAPI documents: of a service, the topics it reads and writes; of the whole system, all topics. And their records.

FastStream knows which topics those are, but not what is in them: the batch consumer takes records raw, to validate them
one by one, and a publisher has one schema where a topic may have several events. What a topic holds is said once, in
`shared.contract.topics`; here it becomes one message for each event, with its CloudEvents headers, its key and its payload.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Final

from faststream.kafka import KafkaBroker
from faststream.specification import AsyncAPI
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema, Channel, Components, Message, Operation
from faststream.specification.base import Specification
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


def document_writes(broker: KafkaBroker, *topics: str) -> None:
    """Name the topics that a service writes, for its document. `EventProducer` does the writing, FastStream does not."""
    for topic in topics:
        broker.publisher(topic, title=topic)


class TopicsDocument(AsyncAPI):
    """FastStream's document with the messages of `shared.contract.topics`.

    One channel for each topic, also where a service both reads and writes it, and names without blanks and colons: the
    specification allows only letters, digits, ``.``, ``-`` and ``_`` for the keys of components.
    """

    _document: Specification | None = None

    def to_specification(self) -> Specification:
        """The document. It is put together once: subscribers and publishers are known before anybody can ask.

        Raises:
            KeyError: a topic is read or written that `shared.contract.topics` does not have.
        """
        if self._document is None:
            self._document = self._put_together()
        return self._document

    def _put_together(self) -> Specification:
        document = super().to_specification()
        assert isinstance(document, ApplicationSchema)
        reads = _addresses(subscriber for broker in self.brokers for subscriber in broker.subscribers)
        writes = _addresses(publisher for broker in self.brokers for publisher in broker.publishers)
        topics = [_TOPICS[name] for name in sorted({*reads, *writes})]
        # FastStream calls a single server "development", wherever it stands.
        document.servers = {f"kafka{n}": server for n, server in enumerate((document.servers or {}).values(), 1)}
        servers = [{"$ref": f"#/servers/{name}"} for name in document.servers]
        document.channels = {topic.name: _channel(topic, servers) for topic in topics}
        document.operations = {
            f"{action}.{name}": _operation(action, _TOPICS[name])
            for action, names in (("receive", reads), ("send", writes))
            for name in names
        }
        document.components = Components(
            messages={name: message for topic in topics for name, message in _messages(topic).items()},
            schemas=_schemas(topics),
            securitySchemes=document.components.securitySchemes if document.components else None,
        )
        return document


def _addresses(endpoints: Iterable[Any]) -> list[str]:
    return sorted({channel.address for endpoint in endpoints for channel in endpoint.schema().values()})


def system_document(version: str) -> dict[str, Any]:
    """The document of all topics, for those who subscribe: what Groundswell sends, and where. It names no servers.

    Args:
        version: of Groundswell.
    """
    topics = all_topics()
    document = ApplicationSchema.model_validate(
        {
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
            "defaultContentType": "application/json",
            "channels": {topic.name: _channel(topic) for topic in topics},
            "operations": {f"send.{topic.name}": _operation("send", topic) for topic in topics},
            "components": Components(
                messages={name: message for topic in topics for name, message in _messages(topic).items()},
                schemas=_schemas(topics),
            ),
        }
    )
    found: dict[str, Any] = document.to_jsonable()
    return found


def _channel(topic: Topic, servers: list[dict[str, str]] | None = None) -> Channel:
    kept = f"Kept {topic.retention.days} days" if topic.retention else "Compacted: the last record of each key stays"
    internal = " Internal: not for others; it may change in any version." if topic.internal else ""
    return Channel.model_validate(
        {
            "address": topic.name,
            "description": f"{topic.holds[0].upper()}{topic.holds[1:]}. Key: {topic.key}. {kept}.{internal}",
            "servers": servers,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _messages(topic)},
            "bindings": {"kafka": {"topic": topic.name, "bindingVersion": _KAFKA_BINDING}},
        }
    )


def _operation(action: str, topic: Topic) -> Operation:
    return Operation.model_validate(
        {
            "action": action,
            "channel": {"$ref": f"#/channels/{topic.name}"},
            "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in _messages(topic)],
        }
    )


def _messages(topic: Topic) -> dict[str, Message]:
    """The kinds of records of a topic by name: its events, or dead letters."""
    if not topic.events:
        return {f"DeadLetter.{topic.name}": _dead_letter(topic)}
    return {event.__name__: _message(event, topic) for event in topic.events}


def _message(event: type[Event], topic: Topic) -> Message:
    headers = {**_CLOUD_EVENT, "ce_type": {"const": event.TYPE}}
    return Message.model_validate(
        {
            "name": event.TYPE,
            "title": event.__name__,
            "summary": inspect.cleandoc(event.__doc__ or "").partition("\n\n")[0],
            "contentType": "application/json",
            "headers": {"type": "object", "required": sorted(headers), "properties": headers},
            "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
            "bindings": _key(topic),
        }
    )


def _dead_letter(topic: Topic) -> Message:
    return Message.model_validate(
        {
            "name": topic.name,
            "title": "Dead letter",
            "summary": f"One of the {topic.holds}.",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "required": sorted(_DEAD_LETTER),
                "properties": _DEAD_LETTER,
                "description": "The headers of the record that could not be read, and these.",
            },
            "payload": {"description": "The bytes of the record that could not be read."},
            "bindings": _key(topic),
        }
    )


def _key(topic: Topic) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": _KAFKA_BINDING}}


def _schemas(topics: Iterable[Topic]) -> dict[str, dict[str, Any]]:
    """The payloads, with what they are made of.

    What a reader may rely on: a field that was added later, so has a default, is missing in records from before.
    """
    events = [event for topic in topics for event in topic.events]
    _, schemas = models_json_schema(
        [(event, "validation") for event in events], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, dict[str, Any]] = schemas.get("$defs", {})
    return definitions
