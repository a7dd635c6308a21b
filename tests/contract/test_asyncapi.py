"""The AsyncAPI document of every service: the public parser reads it, and it matches the records on the topics."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import ConsumerRecord
from jsonschema import Draft7Validator

from deploy.generated import EVENTS, ROOT
from deploy.local.parts.service import ServiceName
from deploy.local.stack import Stack
from shared.contract.topics import TOPICS, all_topics
from tests.needs import NeedMissing, install_asyncapi_parser
from tests.support.system import System
from tests.support.waiting import eventually

PARSER = Path(__file__).parent / "asyncapi"

_REMARKS = {"asyncapi-latest-version"}
"""The documents follow AsyncAPI 3.0.0, which more tools read than the newest; the parser remarks on that."""

READS_AND_WRITES: dict[ServiceName, tuple[set[str], set[str]]] = {
    "ingest": (
        {"petitions.changed.v1"},
        {"petitions.changed.v1", "signatures.submitted.v1"},
    ),
    "verify": (
        {"petitions.changed.v1", "signatures.submitted.v1"},
        {"signatures.verified.v1", "signatures.rejected.v1", "signatures.submitted.v1.dlq"},
    ),
    "tally": (
        {"petitions.changed.v1", "signatures.verified.v1", "tallies.updated.v1"},
        {"tallies.updated.v1", "milestones.reached.v1", "signatures.verified.v1.dlq"},
    ),
    "notify": (
        {"petitions.changed.v1", "milestones.reached.v1"},
        {"milestones.reached.v1.dlq"},
    ),
}


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the parser installed as locked."""
    program = shutil.which("node")
    if program is None:
        pytest.fail("node is missing: make test installs it where it may (Debian: nodejs and npm)")
    try:
        install_asyncapi_parser()
    except NeedMissing as error:
        pytest.fail(str(error))
    return program


@pytest.fixture(scope="module")
async def documents(running_stack: Stack) -> dict[ServiceName, dict[str, Any]]:
    """The documents as the running services serve them."""
    async with httpx.AsyncClient(timeout=30) as http:
        answers = {
            service: await http.get(f"{running_stack.services[service][0].url}/docs/asyncapi.json")
            for service in READS_AND_WRITES
        }
    return {service: answer.raise_for_status().json() for service, answer in answers.items()}


@pytest.fixture(scope="module")
async def parsed(node: str, documents: dict[ServiceName, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The public parser's findings about the documents. It takes a second to load, so it runs once for all."""
    return await parse(node, documents)


async def parse(node: str, documents: Mapping[ServiceName | str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The public parser's findings about these documents, by name."""
    process = await asyncio.create_subprocess_exec(
        node, PARSER / "parse.mjs", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate(json.dumps(documents).encode())
    assert process.returncode == 0
    found: dict[str, dict[str, Any]] = json.loads(output)
    return found


async def test_the_public_parser_finds_every_topic_with_its_events_in_the_document_of_the_whole_system(
    node: str,
) -> None:
    document = json.loads((ROOT / EVENTS / "asyncapi.json").read_text(encoding="utf-8"))
    found = (await parse(node, {"system": document}))["system"]
    assert [one for one in found["diagnostics"] if one["code"] not in _REMARKS] == []
    assert document["info"]["version"] == version("groundswell")
    operations = {name: one for one in found["operations"] for name in one["topics"]}
    assert set(operations) == {topic.name for topic in all_topics()}
    for name, operation in operations.items():
        assert operation["action"] == "send"
        says_what_is_on_the_topic(name, operation["messages"])


@pytest.mark.parametrize("service", READS_AND_WRITES)
def test_the_public_parser_finds_every_topic_of_a_service_with_its_events(
    service: ServiceName, parsed: dict[str, dict[str, Any]]
) -> None:
    found = parsed[service]
    assert [one for one in found["diagnostics"] if one["code"] not in _REMARKS] == []

    reads, writes = READS_AND_WRITES[service]
    by_action = {
        action: {topic: one for one in found["operations"] if one["action"] == action for topic in one["topics"]}
        for action in ("receive", "send")
    }
    assert (set(by_action["receive"]), set(by_action["send"])) == (reads, writes)
    for operations in by_action.values():
        for name, operation in operations.items():
            says_what_is_on_the_topic(name, operation["messages"])


def says_what_is_on_the_topic(name: str, messages: list[dict[str, Any]]) -> None:
    topic = {one.name: one for one in all_topics()}[name]
    assert [message["key"]["description"] for message in messages] == [topic.key] * len(messages)
    if not topic.events:
        (dead_letter,) = messages
        assert "dlq_reason" in dead_letter["headers"]["required"]
        return
    assert {message["name"] for message in messages} == {event.TYPE for event in topic.events}
    for message, event in zip(messages, topic.events, strict=True):
        assert message["contentType"] == "application/json"
        assert set(message["payload"]["properties"]) == set(event.model_fields)
        assert message["headers"]["properties"]["ce_type"]["const"] == event.TYPE


@pytest.mark.parametrize("service", READS_AND_WRITES)
async def test_the_page_for_people_is_there_and_lets_nobody_publish(service: ServiceName, system: System) -> None:
    url = system.stack.services[service][0].url
    page = await system.http.get(f"{url}/docs/asyncapi")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert (await system.http.post(f"{url}/docs/asyncapi/try", json={})).status_code == 404


async def test_the_events_of_a_petition_are_on_the_topics_as_the_documents_say(
    system: System, documents: dict[ServiceName, dict[str, Any]]
) -> None:
    await cause_every_event(system)
    wanted = {event.TYPE for topic in TOPICS for event in topic.events}

    async def seen() -> set[str]:
        return {
            type_of(record)
            for topic in TOPICS
            for record in await events_of("documented", topic.name, system)
            if all(follows(document, record) for document in documents.values() if topic.name in document["channels"])
        }

    async def all_seen() -> bool:
        return await seen() == wanted

    await eventually(all_seen, f"there is one of each of {sorted(wanted)}")


async def test_every_service_writes_only_where_its_document_says(
    system: System, documents: dict[ServiceName, dict[str, Any]]
) -> None:
    await system.start_petition("written-where-said", milestones=[1])
    await system.surge("written-where-said", range(2))
    await system.counts_to("written-where-said", 2)
    written = {
        (headers_of(record)["ce_source"], topic.name)
        for topic in TOPICS
        for record in await events_of("written-where-said", topic.name, system)
    }
    said = {
        (
            f"/groundswell/{service}",
            document["channels"][operation["channel"]["$ref"].removeprefix("#/channels/")]["address"],
        )
        for service, document in documents.items()
        for operation in document["operations"].values()
        if operation["action"] == "send"
    }
    assert len({source for source, _ in written}) == 3, "ingest, verify and tally have written"
    assert written <= said


async def cause_every_event(system: System) -> None:
    """Make petitions whose signatures take every road: verified, duplicate, confirmed, taken back, erased."""
    await system.start_petition("documented", milestones=[1])
    signatures = await system.surge("documented", range(3))
    await system.surge("documented", range(1), name="Once More")
    await system.decided("documented", 4)
    for signature, change in zip(signatures, ("withdraw", "invalidate"), strict=False):
        await command(system, signature, change)
    await command(system, signatures[2], "erase", actor="Kim, helpdesk", reason="Request 4711")
    await system.start_petition("documented-confirmed", policy={"confirmation": "required"})
    (signature,) = await system.surge("documented-confirmed", range(1))
    await system.decided("documented-confirmed", 1)
    await command(system, signature, "confirm")
    await system.counts_to("documented-confirmed", 1)


async def command(system: System, signature: str, change: str, **body: str) -> None:
    address = f"{system.ingest}/v1/signatures/{signature}/{change}"
    answer = await system.http.post(address, json=body or None, headers=system.admin)
    assert answer.status_code == 202, answer.text


async def events_of(petition: str, topic: str, system: System) -> list[ConsumerRecord[Any, Any]]:
    """The records about petitions of this test: other tests write unreadable ones on purpose."""
    return [record for record in await system.records(topic) if f'"petition_id":"{petition}'.encode() in record.value]


def headers_of(record: ConsumerRecord[Any, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def type_of(record: ConsumerRecord[Any, Any]) -> str:
    return headers_of(record)["ce_type"]


def follows(document: dict[str, Any], record: ConsumerRecord[Any, Any]) -> bool:
    """Check a record against the message of its type. Raises jsonschema.ValidationError with what is wrong."""
    messages = document["components"]["messages"].values()
    (message,) = [message for message in messages if message["name"] == type_of(record)]
    for schema, instance in (
        (message["headers"], headers_of(record)),
        (message["payload"], json.loads(record.value)),
    ):
        Draft7Validator({**schema, "components": document["components"]}).validate(instance)
    return True
