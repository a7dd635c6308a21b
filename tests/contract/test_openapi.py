"""ingest keeps to its OpenAPI document: schemathesis makes requests from it, right and wrong ones, and checks the answers.

Deterministic: the same requests in every run, so a failure is a change of ingest, of the document, or of schemathesis.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from services.ingest.openapi.document import document
from services.ingest.openapi.parts import EXAMPLE_PETITION, EXAMPLE_SIGNATURE
from services.ingest.signing.batch import CONTENT_TYPES
from shared.contract.identity import signer_key
from shared.kafka.apply_topics import apply_topics
from tests.support.running_ingest import AS_ADMIN, PEPPER, STATE, running_ingest

CONFIG = {
    "generation": {"deterministic": True, "max-examples": 20, "database": "none"},
    "operations": [
        {
            # A petition has rules that JSON Schema cannot say: milestones rise, it opens before it closes, target ids
            # are all different. Fields with a value must be named, and If-Match must name the present state.
            "include-operation-id": "change_petition",
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "409", "412", "422"]},
                "negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]},
            },
        },
        {
            # The same; and what is removed may be needed.
            "include-operation-id": "patch_petition",
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "412", "422"]},
                "negative_data_rejection": {"expected-statuses": ["4xx", "5xx"]},
            },
        },
        {
            # Of a form too: there is such a petition, it takes signatures, there is such a country, a name has letters.
            "include-operation-id": "sign",
            "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "410", "422"]}},
        },
        {
            # In the document a batch is text; a wrong line is reported in its result, with 207 for the batch.
            "include-operation-id": "sign_batch",
            "checks": {
                "negative_data_rejection": {"enabled": False},
                "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "404", "409", "410"]},
            },
        },
    ],
}

api = schemathesis.openapi.from_dict(document(), config=schemathesis.Config.from_dict(CONFIG))

answered: dict[str, set[int]] = {}
"""The statuses that the administrator got, by call."""

repeatable = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), max_examples=20)


@schemathesis.serializer(*(kind.decode() for kind in CONTENT_TYPES))
def lines(_: schemathesis.SerializationContext, value: object) -> bytes:
    """schemathesis does not know NDJSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode()


@dataclass(frozen=True)
class Address:
    """ingest's address, and a decided signature that replaces the id of the document's examples."""

    url: str
    signature_id: str


@pytest.fixture(scope="module")
async def ingest(
    kafka: KafkaBroker, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Address]:
    await apply_topics(kafka.bootstrap_servers)
    postgres_url = await postgres.create_database("openapi_tests")
    await migrate(postgres_url)
    async with running_ingest(kafka, postgres_url=postgres_url, log_dir=tmp_path_factory.mktemp("openapi")) as running:
        await running.start_petition(EXAMPLE_PETITION)
        signature_id = (await running.sign(EXAMPLE_PETITION)).json()["signature_id"]
        signer = signer_key(PEPPER.encode(), EXAMPLE_PETITION, "robin@mail.example")
        await running.decide(signature_id, state="pending", petition_id=EXAMPLE_PETITION, signer=signer)
        yield Address(running.process.url, signature_id)


@api.parametrize()
@repeatable
def test_every_call_answers_as_its_document_says_to_the_administrator(case: schemathesis.Case, ingest: Address) -> None:
    _made_ready(case, ingest)
    response = case.call_and_validate(base_url=ingest.url, headers=AS_ADMIN)
    answered.setdefault(case.operation.definition.raw["operationId"], set()).add(response.status_code)


@api.parametrize()
@repeatable
def test_every_call_answers_as_its_document_says_to_anyone(case: schemathesis.Case, ingest: Address) -> None:
    _made_ready(case, ingest)
    case.call_and_validate(base_url=ingest.url)


def _made_ready(case: schemathesis.Case, ingest: Address) -> None:
    """What the document cannot know of this ingest, and the petition as it was before the other calls."""
    _known_signature(case, ingest)
    _credentials_of_one_kind(case)
    if case.operation.definition.raw["operationId"] == "sign":
        _takes_signatures(ingest)


def _credentials_of_one_kind(case: schemathesis.Case) -> None:
    """The document says bearer or API key; schemathesis sends both, which is refused."""
    (case.headers or {}).pop("X-API-Key", None)


def test_the_requests_reached_what_each_call_is_for() -> None:
    assert {call: min(statuses) for call, statuses in answered.items()} == {
        "petitions": 200,
        "petition": 200,
        "change_petition": 200,
        "patch_petition": 200,
        "sign": 202,
        "sign_batch": 207,
        "signature_status": 200,
        "confirm_signature": 202,
        "withdraw_signature": 202,
        "invalidate_signature": 202,
        "erase_signature": 202,
    }


def _known_signature(case: schemathesis.Case, ingest: Address) -> None:
    if case.path_parameters.get("signature_id") == EXAMPLE_SIGNATURE:
        case.path_parameters["signature_id"] = ingest.signature_id


def _takes_signatures(ingest: Address) -> None:
    """Whatever the calls before made of the petition, it takes signatures again: they may have paused or closed it."""
    url = f"{ingest.url}/v1/petitions/{EXAMPLE_PETITION}"
    answer = httpx.put(url, params={"replace": "true"}, json=STATE, headers=AS_ADMIN)
    assert answer.status_code == 200, answer.text
