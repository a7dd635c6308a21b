"""All schemas of ingest's OpenAPI document: those of the models, and two that are derived from them."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.ingest.openapi.parts import Json
from services.ingest.petitions.documents import READ_ONLY
from services.ingest.signing.admission import BatchLine, Erasure, Submission
from services.ingest.web.schemas import (
    BatchAnswer,
    CommandSubmitted,
    PetitionBody,
    PetitionList,
    PublicPetition,
    SignatureStatus,
    SignatureSubmitted,
)
from shared.contract.events import PetitionChanged
from shared.web.problems import ProblemDetails

_READ: Final[tuple[type[BaseModel], ...]] = (Submission, BatchLine, PetitionBody, Erasure)
_WRITTEN: Final[tuple[type[BaseModel], ...]] = (
    SignatureSubmitted,
    CommandSubmitted,
    SignatureStatus,
    ProblemDetails,
    BatchAnswer,
    PublicPetition,
    PetitionChanged,
    PetitionList,
)
_NO_OTHER_FIELDS: Final = ("PetitionBody", "Organisation", "Target", "Policy", "Pause")
"""A typo in a petition is refused (services/ingest/petitions/calls.py)."""


def schemas() -> Json:
    """All schemas, of request and response bodies."""
    _, definitions = models_json_schema(
        [*((model, "validation") for model in _READ), *((model, "serialization") for model in _WRITTEN)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = definitions["$defs"]
    for name in _NO_OTHER_FIELDS:
        schemas[name]["additionalProperties"] = False
    schemas["SubmissionForm"] = _form(schemas["Submission"])
    schemas["PetitionPatch"] = {
        **_patch(_changeable(schemas["PetitionBody"]), schemas),
        "title": "PetitionPatch",
        "description": "What changes of a petition (RFC 7396): null removes, objects are merged, arrays replaced.",
    }
    return dict(sorted(schemas.items()))


def _changeable(body: Json) -> Json:
    return {**body, "properties": {name: field for name, field in body["properties"].items() if name not in READ_ONLY}}


def _patch(schema: Json, schemas: Json) -> Json:
    """The same object with every field optional or null, recursively."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    fields = {
        name: {
            "anyOf": [
                _patch(field, schemas) if _is_object(field, schemas) else _without_default(field),
                {"type": "null"},
            ]
        }
        for name, field in schema["properties"].items()
    }
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _is_object(schema: Json, schemas: Json) -> bool:
    return "properties" in (schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema)


def _without_default(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name != "default"}


def _form(submission: Json) -> Json:
    """The submission as an HTML form: every field is text."""
    texts = {name: _text_of(schema) for name, schema in submission["properties"].items() if name != "consent"}
    consent = {"type": "string", "description": "`on`, `true`, `1` or `yes`, as a ticked box sends it."}
    return {
        "type": "object",
        "title": "SubmissionForm",
        "description": "A submission as an HTML form sends it.",
        "properties": {**texts, "consent": consent},
        "required": submission["required"],
    }


def _text_of(schema: Json) -> Json:
    return next((option for option in schema.get("anyOf", []) if option.get("type") == "string"), schema)
