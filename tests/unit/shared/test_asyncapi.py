"""The AsyncAPI document describes every topic as `shared.contract.topics` does."""

from __future__ import annotations

from typing import Any

import pytest
from faststream.kafka import KafkaBroker
from faststream.security import SASLScram512

from shared.asyncapi import TopicsDocument
from shared.contract.topics import all_topics
from shared.kafka.registration import document_writes


def document_of(broker: KafkaBroker) -> dict[str, Any]:
    document: dict[str, Any] = TopicsDocument(broker, title="A service").to_specification().to_jsonable()
    return document


def reading(broker: KafkaBroker, topic: str) -> KafkaBroker:
    """A broker with one more subscriber that takes records raw, as the batch consumer does."""

    async def handle(_: object) -> None: ...

    broker.subscriber(topic, batch=True, title=f"{topic} read by somebody")(handle)
    return broker


@pytest.fixture
def broker() -> KafkaBroker:
    return KafkaBroker(["broker-1:9092", "broker-2:9092"])


def test_a_topic_that_is_read_and_written_is_one_channel_with_two_operations(broker: KafkaBroker) -> None:
    document_writes(reading(broker, "tallies.updated.v1"), "tallies.updated.v1")
    document = document_of(broker)
    assert set(document["channels"]) == {"tallies.updated.v1"}
    assert {name: one["action"] for name, one in document["operations"].items()} == {
        "receive.tallies.updated.v1": "receive",
        "send.tallies.updated.v1": "send",
    }


def test_every_event_of_a_topic_is_a_message_with_its_type_key_and_payload(broker: KafkaBroker) -> None:
    components = document_of(reading(broker, "signatures.verified.v1"))["components"]
    assert set(components["messages"]) == {"SignatureVerified", "SignatureRevoked"}
    verified = components["messages"]["SignatureVerified"]
    assert verified["name"] == "groundswell.signature.verified.v1"
    assert verified["payload"] == {"$ref": "#/components/schemas/SignatureVerified"}
    assert verified["headers"]["properties"]["ce_type"] == {"const": "groundswell.signature.verified.v1"}
    assert verified["bindings"]["kafka"]["key"]["description"] == "petition id"
    assert set(components["schemas"]) == {"SignatureVerified", "SignatureRevoked"}


def test_what_payloads_are_made_of_is_in_the_document_too(broker: KafkaBroker) -> None:
    schemas = document_of(reading(broker, "petitions.changed.v1"))["components"]["schemas"]
    assert set(schemas) == {"PetitionChanged", "Organisation", "Target", "Policy", "Pause"}
    assert schemas["PetitionChanged"]["properties"]["organisation"]["$ref"] == "#/components/schemas/Organisation"


def test_dead_letters_are_bytes_with_the_reason_in_their_headers(broker: KafkaBroker) -> None:
    document_writes(broker, "signatures.submitted.v1.dlq")
    (letter,) = document_of(broker)["components"]["messages"].values()
    assert letter["contentType"] == "application/octet-stream"
    assert "dlq_reason" in letter["headers"]["required"]


def test_all_topics_can_be_documented_at_once(broker: KafkaBroker) -> None:
    document_writes(broker, *(topic.name for topic in all_topics()))
    document = document_of(broker)
    assert set(document["channels"]) == {topic.name for topic in all_topics()}
    assert [server["host"] for server in document["servers"].values()] == ["broker-1:9092", "broker-2:9092"]


def test_a_topic_that_nobody_knows_is_a_mistake(broker: KafkaBroker) -> None:
    document_writes(broker, "tallies.updatd.v1")
    with pytest.raises(KeyError, match=r"tallies\.updatd\.v1"):
        document_of(broker)


def test_how_to_log_in_is_in_the_document_and_the_password_is_not() -> None:
    security = SASLScram512(username="groundswell", password="hunter2!", use_ssl=True)
    document = document_of(reading(KafkaBroker(["broker-1:9093"], security=security), "petitions.changed.v1"))
    assert document["components"]["securitySchemes"] == {"scram512": {"type": "scramSha512"}}
    (server,) = document["servers"].values()
    assert server["protocol"] == "kafka-secure"
    assert server["security"] == [{"$ref": "#/components/securitySchemes/scram512"}]
    assert "hunter2" not in str(document)
