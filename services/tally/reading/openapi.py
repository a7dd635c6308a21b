"""The OpenAPI 3.1 document of the read side. Its copy is docs/openapi-tally.json."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from services.tally.reading.views import OrganisationBody, TallyBody
from shared.contract.bounds.texts import SLUG
from shared.contract.events import TallyUpdated
from shared.web import malformed
from shared.web.problems import PROBLEM_JSON, ProblemDetails

_SLUG: Final = {"type": "string", "pattern": rf"^{SLUG}$"}

_TALLY_STREAM: Final = """\
Server-sent events. The first event is the tally as it is, then one comes with every update (at most about four a second).
`event` is `tally`, `id` is the version (the revision, after the epoch if that is not 0), `data` is a TallyUpdated object
(`detail=full`) or its `petition_id`, `count`, `revision` and, if it is not 0, `epoch` (`detail=count`). A reader that
reconnects with `Last-Event-ID` is not sent that version again. A slow reader misses updates in between, never the newest.
Comments keep an idle stream open. The stream ends when the server stops; reconnect after `retry` milliseconds."""

_ORGANISATION_STREAM: Final = """\
Server-sent events about all petitions of an organisation in one stream (browsers open few connections to one host). The
first event is `organisation`: `{"slug", "supporters", "petitions": [{"petition_id", "count", "revision"}]}`. Each update
is `tally`: `{"petition_id", "count", "revision", "supporters"}`, where `supporters` is the new sum over all petitions. An
`epoch` is given with a revision if it is not 0: a higher epoch is newer than every revision of a lower one. The events have
no id: a reader that reconnects gets the first event again."""


@cache
def document() -> dict[str, Any]:
    """The document. Callers must not change it."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in (TallyBody, OrganisationBody, TallyUpdated, ProblemDetails)],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Groundswell tally",
            "version": "1.0.0",
            "description": "Live counts of petitions. Everything here is public; nothing says who signed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/petitions/{petition_id}/tally": {
                "get": _cached("getTally", "The live count of a petition", "petition_id", "TallyBody")
            },
            "/v1/petitions/{petition_id}/tally/stream": {
                "get": _streamed(
                    "streamTally",
                    "The live count of a petition, as it changes",
                    _TALLY_STREAM,
                    "petition_id",
                    [
                        _parameter("detail", "query", {"enum": ["full", "count"], "default": "full"}),
                        _parameter("Last-Event-ID", "header", {"type": "string"}),
                    ],
                )
            },
            "/v1/organisations/{slug}": {
                "get": _cached("getOrganisation", "An organisation and its petitions", "slug", "OrganisationBody")
            },
            "/v1/organisations/{slug}/stream": {
                "get": _streamed(
                    "streamOrganisation", "An organisation's counts, as they change", _ORGANISATION_STREAM, "slug", []
                )
            },
        },
        "components": {
            "schemas": schemas["$defs"],
            "responses": {
                "Malformed": _problem(malformed.DETAIL),
                "NotFound": _problem("There is no such petition or organisation."),
                "Invalid": _problem("A parameter is wrong; `errors` says which and why."),
                "Away": {
                    **_problem("The counts cannot be read now, or all streams are taken."),
                    "headers": {"Retry-After": {"required": True, "schema": {"type": "integer"}}},
                },
            },
        },
    }


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {"description": description, "content": {PROBLEM_JSON: {"schema": schema}}}


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _cached(operation: str, summary: str, key: str, body: str) -> dict[str, Any]:
    headers = {name: {"required": True, "schema": {"type": "string"}} for name in ("ETag", "Cache-Control")}
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [
            _parameter(key, "path", _SLUG),
            _parameter("If-None-Match", "header", {"type": "string"}),
        ],
        "responses": {
            "200": {
                "description": "The present state; may be cached for a second.",
                "headers": headers,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
            },
            "304": {"description": "Unchanged since the version in If-None-Match.", "headers": headers},
            **_refusals(),
        },
    }


def _streamed(
    operation: str, summary: str, description: str, key: str, parameters: list[dict[str, Any]]
) -> dict[str, Any]:
    invalid = {"422": {"$ref": "#/components/responses/Invalid"}} if parameters else {}
    return {
        "operationId": operation,
        "summary": summary,
        "description": description,
        "parameters": [_parameter(key, "path", _SLUG), *parameters],
        "responses": {
            "200": {"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
            **invalid,
            **_refusals(),
        },
    }


def _refusals() -> dict[str, Any]:
    return {
        "400": {"$ref": "#/components/responses/Malformed"},
        "404": {"$ref": "#/components/responses/NotFound"},
        "503": {"$ref": "#/components/responses/Away"},
    }
