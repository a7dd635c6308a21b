"""tally keeps to its OpenAPI document: schemathesis makes requests from it, right and wrong ones, and checks the answers.

Deterministic: the same requests in every run. Streams have no end, so they are read by hand, to their first event.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator

from deploy.local.stack import Stack
from services.tally.reading.openapi import document
from shared.contract.topics import TALLIES_UPDATED
from tests.support.system import System

PETITION, ORGANISATION = "as-documented", "document-readers"
STREAMS: Final = ("streamTally", "streamOrganisation")
CONFIG = {"generation": {"deterministic": True, "max-examples": 30, "database": "none"}}

api = schemathesis.openapi.from_dict(document(), config=schemathesis.Config.from_dict(CONFIG)).exclude(
    operation_id=list(STREAMS)
)
repeatable = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), max_examples=30)


@dataclass(frozen=True)
class Running:
    """A tally with a petition that has been signed."""

    url: str


@pytest.fixture
async def tally(system: System) -> Running:
    await system.start_petition(
        PETITION, organisation={"slug": ORGANISATION, "name": "Readers of Documents"}, milestones=[1, 10]
    )
    await system.surge(PETITION, range(3))
    await system.counts_to(PETITION, 3)
    return Running(system.tally)


def test_the_document_that_is_served_is_the_one_that_is_tested(running_stack: Stack) -> None:
    served = httpx.get(f"{running_stack.services['tally'][0].url}/openapi.json", timeout=30)
    assert served.json() == document()


@api.parametrize()
@repeatable
def test_every_call_answers_as_its_document_says(case: schemathesis.Case, tally: Running) -> None:
    case.call_and_validate(base_url=tally.url)


@api.parametrize()
@repeatable
def test_every_call_about_what_is_there_answers_as_its_document_says(case: schemathesis.Case, tally: Running) -> None:
    known = {"petition_id": PETITION, "slug": ORGANISATION}
    case.path_parameters = {name: known[name] for name in case.path_parameters}
    response = case.call_and_validate(base_url=tally.url)
    # schemathesis also tries methods that no call has.
    assert response.status_code in ((200, 304) if case.method == "GET" else (405,))


async def first_event(system: System, path: str) -> tuple[dict[str, str], httpx.Headers]:
    """The fields of a stream's first event, and the headers it came with."""
    async with system.http.stream("GET", system.tally + path) as answer:
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                return fields, answer.headers
    raise AssertionError("the stream ended before its first event")


@pytest.mark.usefixtures("tally")
async def test_a_petitions_stream_begins_with_a_whole_tally(system: System) -> None:
    event, headers = await first_event(system, f"/v1/petitions/{PETITION}/tally/stream")
    assert headers["content-type"].partition(";")[0] == "text/event-stream"
    body: dict[str, Any] = json.loads(event["data"])
    assert (event["event"], event["id"]) == ("tally", str(body["revision"]))
    (schema,) = (one.model_json_schema() for one in TALLIES_UPDATED.events)
    Draft202012Validator(schema).validate(body)
    assert body["count"] == 3


@pytest.mark.usefixtures("tally")
async def test_an_organisations_stream_begins_with_all_its_counts(system: System) -> None:
    event, _ = await first_event(system, f"/v1/organisations/{ORGANISATION}/stream")
    assert event["event"] == "organisation"
    assert json.loads(event["data"]) == {
        "slug": ORGANISATION,
        "supporters": 3,
        "petitions": [{"petition_id": PETITION, "count": 3, "revision": 3}],
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/petitions/no-such-petition/tally/stream", 404),
        ("/v1/organisations/no-such-organisation/stream", 404),
        (f"/v1/petitions/{PETITION}/tally/stream?detail=everything", 422),
    ],
)
@pytest.mark.usefixtures("tally")
async def test_a_stream_that_cannot_be_is_refused_as_a_problem(path: str, status: int, system: System) -> None:
    answer = await system.http.get(system.tally + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
