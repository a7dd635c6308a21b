"""The OpenAPI document: complete, valid, and the committed copy is the one that is served."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
from jsonschema import Draft202012Validator

from services.ingest.openapi.document import document
from services.ingest.problems import KINDS

COMMITTED = Path(__file__).parents[5] / "docs" / "openapi.json"


def operations():
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield f"{method} {path}", operation


def test_the_committed_document_is_the_one_that_is_served():
    assert json.loads(COMMITTED.read_text()) == document(), "run: groundswell generated"


def test_every_schema_is_a_valid_json_schema_and_every_reference_leads_somewhere():
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document())
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas


@pytest.mark.parametrize(("name", "operation"), list(operations()))
def test_every_call_has_an_id_a_summary_and_its_refusals_as_problem_details(name, operation):
    assert operation["operationId"]
    assert operation["summary"]
    assert "503" in operation["responses"]
    for status, response in operation["responses"].items():
        if int(status) >= 400:
            assert "application/problem+json" in response["content"]
        if status in ("429", "503"):
            assert "Retry-After" in response["headers"]


def test_every_refusal_is_documented_at_some_call_but_those_of_addresses_that_are_not_there():
    documented = {
        name
        for _, operation in operations()
        for response in operation["responses"].values()
        for name in response.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }
    assert set(KINDS) - documented == {"not_found", "method_not_allowed"}


def test_the_examples_are_valid():
    whole = document()
    for name, operation in operations():
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if "ndjson" in kind or "jsonl" in kind:
                continue
            schema = {**content["schema"], "components": whole["components"]}
            jsonschema_rs.validator_for(schema).validate(content["example"])
            assert name
