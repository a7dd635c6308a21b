"""A call in the table of calls (`services.ingest.openapi.calls`), and the parts of the document made from it.

Written by hand, because FastAPI, apispec and spectree only document endpoints of their own kind: see docs/adr/0020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final

from services.ingest.problems import KINDS, problem
from shared.contract.bounds.texts import SLUG
from shared.web.problems import PROBLEM_JSON

Json = dict[str, Any]

EXAMPLE_PETITION: Final = "night-trains-north"
EXAMPLE_SIGNATURE: Final = "019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"

SLUG_SCHEMA: Final[Json] = {"type": "string", "pattern": rf"^{SLUG}$"}

_PATH: Final[dict[str, Json]] = {
    "petition_id": {"schema": SLUG_SCHEMA, "example": EXAMPLE_PETITION},
    "signature_id": {"schema": {"type": "string", "format": "uuid"}, "example": EXAMPLE_SIGNATURE},
}
"""The path parameters."""

_CREDENTIALS: Final = ("credentials_ambiguous", "credentials_wrong", "too_many_wrong_credentials")
_READING: Final = (
    "malformed_body",
    "body_too_slow",
    "body_too_large",
    "unsupported_content_type",
    "unsupported_content_encoding",
)
_ANYWHERE: Final = ("malformed_request", "overloaded", "internal_error")
"""Refusals of every call; those above are of calls with credentials or a body."""

_HTML: Final[Json] = {"text/html": {"schema": {"type": "string"}}}


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one address."""

    method: str
    path: str
    name: str
    """The ``operationId``."""
    summary: str
    description: str = ""
    _: KW_ONLY
    anyone: bool = False
    """Whether the call needs no credentials."""
    partner: bool = False
    """Whether a partner's API key is enough; an administrator's token always is."""
    parameters: tuple[Json, ...] = ()
    """Parameters besides those in the path."""
    body: Mapping[str, Json] = field(default_factory=dict)
    """By media type: schema and example."""
    body_is: str = ""
    """The description of the body."""
    answers: Mapping[int, Json]
    refused: tuple[str, ...]
    """Names of problems, besides those that come with credentials and bodies."""
    html: bool = False
    """Whether refusals are pages for clients that prefer HTML."""

    def operation(self) -> Json:
        """The Operation Object."""
        security: list[Json] = [{}] if self.anyone else []
        security += [{"bearer": []}, *([{"api_key": []}] if self.partner else [])]
        body = {"description": self.body_is} if self.body_is else {}
        operation = {
            "operationId": self.name,
            "tags": ["signatures" if "/signatures" in self.path else "petitions"],
            "summary": self.summary,
            "description": self.description,
            "security": security,
            "parameters": list(self.parameters),
            "requestBody": {"required": True, **body, "content": dict(self.body)} if self.body else {},
            "responses": {**{str(status): answer for status, answer in self.answers.items()}, **self._refusals()},
        }
        return {name: value for name, value in operation.items() if value}

    def _refusals(self) -> Json:
        """One response per status, each with its problems."""
        names = [
            *(() if self.anyone else ("credentials_required",)),
            *_CREDENTIALS,
            *(() if self.anyone or self.partner else ("admin_only",)),
            *(_READING if self.body else ()),
            *self.refused,
            *_ANYWHERE,
        ]
        by_status: dict[int, list[str]] = {}
        for name in names:
            by_status.setdefault(KINDS[name].status, []).append(name)
        return {str(status): _refusal(by_status[status], html=self.html) for status in sorted(by_status)}


def path_item(path: str, calls: list[Call]) -> Json:
    """The Path Item Object of the calls on one address."""
    parameters = [
        {"name": name, "in": "path", "required": True, **schema}
        for name, schema in _PATH.items()
        if f"{{{name}}}" in path
    ]
    return {
        **({"parameters": parameters} if parameters else {}),
        **{call.method.lower(): call.operation() for call in calls},
    }


def ref(name: str) -> Json:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def query(name: str, description: str, schema: Json) -> Json:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, description: str, example: str, **schema: object) -> Json:
    """A header of the request. Without `schema` it is any text: a text that is not an entity tag matches nothing."""
    return {
        "name": name,
        "in": "header",
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
    }


def location(description: str) -> Json:
    """The Location header of an answer."""
    return {"Location": {"description": description, "schema": {"type": "string", "format": "uri-reference"}}}


def answer(
    description: str, schema: str, example: Json | None = None, *, headers: Json | None = None, html: bool = False
) -> Json:
    """A JSON answer with its schema; with `html`, also a page for clients that prefer HTML."""
    content: Json = {"schema": ref(schema), **({} if example is None else {"example": example})}
    return {
        "description": description,
        "content": {"application/json": content, **(_HTML if html else {})},
        **({} if headers is None else {"headers": headers}),
    }


def _refusal(names: list[str], *, html: bool) -> Json:
    examples = {name: {"value": problem(name).body()} for name in names}
    content = {PROBLEM_JSON: {"schema": ref("ProblemDetails"), "examples": examples}, **(_HTML if html else {})}
    status = KINDS[names[0]].status
    headers: Json = {}
    if "unsupported_content_type" in names:
        headers["Accept-Patch"] = {"description": "Of PATCH: the type that it takes.", "schema": {"type": "string"}}
    if status == 429 or any(KINDS[name].retry_after is not None for name in names):
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return {
        "description": " ".join(f"`{name}`: {KINDS[name].detail}" for name in names),
        "content": content,
        **({"headers": headers} if headers else {}),
    }
