"""The parts that `services.ingest.openapi.document` puts together: parameters, answers, refusals, schemas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.ingest.petitions.documents import READ_ONLY
from services.ingest.problems import KINDS
from services.ingest.signing.admission import BatchLine, Erasure, Submission
from services.ingest.web.schemas import (
    BatchAnswer,
    CommandSubmitted,
    PetitionBody,
    PetitionList,
    ProblemDetails,
    PublicPetition,
    SignatureStatus,
    SignatureSubmitted,
)
from shared.contract.bounds.texts import SLUG
from shared.contract.events import PetitionChanged
from shared.web.problems import PROBLEM_JSON

Json = dict[str, Any]

EXAMPLE_PETITION: Final = "night-trains-north"
EXAMPLE_SIGNATURE: Final = "019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"

CREDENTIALS: Final = ("credentials_ambiguous", "credentials_wrong", "too_many_wrong_credentials")
AUTHORISED: Final = ("credentials_required", *CREDENTIALS)
ADMINISTERING: Final = (*AUTHORISED, "admin_only", "starting")
PUBLISHING: Final = ("kafka_away", "clock_wrong")
READING: Final = (
    "malformed_body",
    "body_too_slow",
    "body_too_large",
    "unsupported_content_type",
    "unsupported_content_encoding",
)
"""Refusals that several calls have in common."""

ADMIN: Final[list[Json]] = [{"bearer": []}]

_ANYWHERE: Final = ("malformed_request", "overloaded", "internal_error")
"""Refusals that every call may give."""

_NO_OTHER_FIELDS: Final = ("PetitionBody", "Organisation", "Target", "Policy", "Pause")
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
        "schema": {"type": "string", "pattern": rf"^{SLUG}$"},
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
    if "unsupported_content_type" in names:
        headers["Accept-Patch"] = {"description": "Of PATCH: the type that it takes.", "schema": {"type": "string"}}
    if first.status == 429 or any(KINDS[name].retry_after is not None for name in names):
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
    if first.status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if headers:
        answer["headers"] = headers
    return answer


def schemas() -> Json:
    """All schemas: bodies that are read, and bodies that are written."""
    read: list[type[BaseModel]] = [Submission, BatchLine, PetitionBody, Erasure]
    written: list[type[BaseModel]] = [
        SignatureSubmitted,
        CommandSubmitted,
        SignatureStatus,
        ProblemDetails,
        BatchAnswer,
        PublicPetition,
        PetitionChanged,
        PetitionList,
    ]
    _, definitions = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
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
    """The same object with every field optional, or null; so it is with the objects in it."""
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
