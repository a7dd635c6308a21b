"""The parts that `services.ingest.openapi` puts together: parameters, answers, refusals, schemas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.ingest.admission import BatchLine, Erasure, Submission
from services.ingest.problems import KINDS
from services.ingest.schemas import (
    BatchAnswer,
    CommandSubmitted,
    ProblemDetails,
    PublicPetition,
    SignatureStatus,
    SignatureSubmitted,
)
from shared.events import PetitionChanged, PetitionState
from shared.http import PROBLEM_JSON

Json = dict[str, Any]

EXAMPLE_PETITION: Final = "night-trains-north"
EXAMPLE_SIGNATURE: Final = "019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"

_ANYWHERE: Final = ("malformed_request", "overloaded", "internal_error")
"""Refusals that every call may give."""

_NO_OTHER_FIELDS: Final = ("PetitionState", "Organisation", "Target", "Policy")
"""A typo in a petition is refused (petitions.py)."""


def ref(name: str) -> Json:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def petition_id() -> Json:
    """The path parameter of a petition."""
    return {
        "name": "petition_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"},
        "example": EXAMPLE_PETITION,
    }


def signature_id() -> Json:
    """The path parameter of a signature."""
    return {
        "name": "signature_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
        "example": EXAMPLE_SIGNATURE,
    }


def location(description: str) -> Json:
    """The Location header of an answer."""
    return {"Location": {"description": description, "schema": {"type": "string", "format": "uri-reference"}}}


def answer(
    description: str, schema: str, example: Json | None = None, *, headers: Json | None = None, html: bool = False
) -> Json:
    """A JSON answer with its schema; `html`: it is a page for those who ask for one."""
    content: Json = {"schema": ref(schema)}
    if example is not None:
        content["example"] = example
    answer: Json = {"description": description, "content": {"application/json": content}}
    if html:
        answer["content"]["text/html"] = {"schema": {"type": "string"}}
    if headers is not None:
        answer["headers"] = headers
    return answer


def refusals(*names: str, html: bool = False) -> Json:
    """The responses for these problems, one per status, each listing its problems."""
    by_status: dict[int, list[str]] = {}
    for name in dict.fromkeys((*names, *_ANYWHERE)):
        by_status.setdefault(KINDS[name].status, []).append(name)
    return {str(status): _refusal(by_status[status], html=html) for status in sorted(by_status)}


def _refusal(names: Iterable[str], *, html: bool) -> Json:
    names = list(names)
    first = KINDS[names[0]]
    content: Json = {
        PROBLEM_JSON: {
            "schema": ref("ProblemDetails"),
            "examples": {
                name: {
                    "value": {
                        "type": f"urn:groundswell:problem:{name}",
                        "title": name.replace("_", " ").capitalize(),
                        "status": KINDS[name].status,
                        "detail": KINDS[name].detail,
                    }
                }
                for name in names
            },
        }
    }
    if html:
        content["text/html"] = {"schema": {"type": "string"}}
    answer: Json = {
        "description": " ".join(f"`{name}`: {KINDS[name].detail}" for name in names),
        "content": content,
    }
    headers: Json = {}
    if first.status == 429 or any(KINDS[name].retry_after is not None for name in names):
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
    if first.status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if headers:
        answer["headers"] = headers
    return answer


def schemas() -> Json:
    """All schemas: bodies that are read, and bodies that are written."""
    read: list[type[BaseModel]] = [Submission, BatchLine, PetitionState, Erasure]
    written: list[type[BaseModel]] = [
        SignatureSubmitted,
        CommandSubmitted,
        SignatureStatus,
        ProblemDetails,
        BatchAnswer,
        PublicPetition,
        PetitionChanged,
    ]
    _, definitions = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = definitions["$defs"]
    for name in _NO_OTHER_FIELDS:
        schemas[name]["additionalProperties"] = False
    schemas["SubmissionForm"] = _form(schemas["Submission"])
    return dict(sorted(schemas.items()))


def _form(submission: Json) -> Json:
    """The submission as a form says it: everything is text."""
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
