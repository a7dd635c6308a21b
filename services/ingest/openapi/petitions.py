"""What the document says of petitions: see `services.ingest.openapi.document`."""

from __future__ import annotations

from typing import Final

from services.ingest.openapi.parts import (
    ADMIN,
    ADMINISTERING,
    CREDENTIALS,
    EXAMPLE_PETITION,
    PUBLISHING,
    READING,
    Json,
    answer,
    petition_id,
    ref,
    refusals,
)
from shared.contract.bounds.texts import SLUG

_EXAMPLE_STATE: Final[Json] = {
    "organisation": {"slug": "open-rails", "name": "Open Rails"},
    "title": "Bring back the night trains to the north",
    "text": "One train each night, with beds, seats and room for bicycles.",
    "targets": [
        {"target_id": "harbour-council", "name": "The Harbour Council", "kind": "body", "email": "post@council.example"}
    ],
    "milestones": [1000, 5000],
    "opens_at": None,
    "closes_at": "2100-01-01T00:00:00Z",
    "policy": {"confirmation": "none", "countries": None, "blocked_email_domains": [], "require_consent": False},
    "paused": None,
    "published": True,
}
_EXAMPLE_ETAG: Final = '"5f0d1c1e4b7a4f6f9c0f3a1d2b8e7c60"'

_CHANGING: Final = (*PUBLISHING, "record_away", "change_unconfirmed", "change_overtaken", "precondition_failed")


def petitions() -> Json:
    """The list."""
    slug: Json = {"type": "string", "pattern": rf"^{SLUG}$"}
    return {
        "get": {
            "operationId": "petitions",
            "tags": ["petitions"],
            "summary": "The petitions that an administrator may change",
            "description": "By id, those that are not published too. A token that is bound to organisations sees theirs.",
            "security": ADMIN,
            "parameters": [
                _query("organisation", "Only those of this organisation.", slug),
                _query("after", "Only those whose id comes after this one.", slug),
                _query("limit", "At most so many.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
            ],
            "responses": {
                "200": answer("The petitions.", "PetitionList"),
                **refusals(*ADMINISTERING, "invalid_fields"),
            },
        },
    }


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def petition() -> Json:
    """One petition."""
    changed = {
        **_EXAMPLE_STATE,
        "petition_id": EXAMPLE_PETITION,
        "changed_at": "2026-11-22T10:42:07Z",
        "version": 1795344127000,
    }
    etag: Json = {
        "ETag": {"description": "Stands for this state.", "schema": {"type": "string", "example": _EXAMPLE_ETAG}}
    }
    if_match = _header("If-Match", "Change it only if it is in this state: 412 otherwise.", _EXAMPLE_ETAG)
    refused = (*ADMINISTERING, *READING, "invalid_fields", *_CHANGING, "other_organisation")
    return {
        "parameters": [petition_id()],
        "get": {
            "operationId": "petition",
            "tags": ["petitions"],
            "summary": "A petition: what everyone may know of it, and all of it for its administrators",
            "security": [{}, *ADMIN],
            "responses": {
                "200": {
                    "description": "The petition; with an administrator's token, its whole state and an ETag.",
                    "headers": etag,
                    "content": {
                        "application/json": {"schema": {"anyOf": [ref("PublicPetition"), ref("PetitionChanged")]}}
                    },
                },
                "304": {"description": "It is in the state that If-None-Match names (administrators)."},
                **refusals(*CREDENTIALS, "petition_unknown", "starting"),
            },
        },
        "put": {
            "operationId": "change_petition",
            "tags": ["petitions"],
            "summary": "Create a petition, or replace its whole state",
            "description": (
                "The body is the whole new state, at most 768 KiB. A field that holds something now must be in it, also"
                " if it shall hold nothing (`fields_left_out`), unless the query says `replace=true`."
            ),
            "security": ADMIN,
            "parameters": [
                _query("replace", "Whether what the body leaves out is erased.", {"type": "boolean", "default": False}),
                if_match,
                _header("If-None-Match", "`*`: create it, and change none that is there.", "*"),
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": ref("PetitionBody"), "example": _EXAMPLE_STATE}},
            },
            "responses": {
                "200": answer("Changed.", "PetitionChanged", changed, headers=etag),
                "201": answer("Created.", "PetitionChanged", changed, headers=etag),
                **refusals(*refused, "fields_left_out"),
            },
        },
        "patch": {
            "operationId": "patch_petition",
            "tags": ["petitions"],
            "summary": "Change what the body names",
            "description": "A JSON merge patch (RFC 7396). The result is checked as a whole, as that of PUT is.",
            "security": ADMIN,
            "parameters": [if_match],
            "requestBody": {
                "required": True,
                "content": {
                    "application/merge-patch+json": {
                        "schema": ref("PetitionPatch"),
                        "example": {"paused": {"sentence": "Signing is back on Monday."}},
                    }
                },
            },
            "responses": {
                "200": answer("Changed.", "PetitionChanged", changed, headers=etag),
                **refusals(*refused, "petition_unknown"),
            },
        },
    }


def _header(name: str, description: str, example: str) -> Json:
    schema = {"type": "string"}  # whatever it is: what is no entity tag names nothing
    return {"name": name, "in": "header", "description": description, "schema": schema, "example": example}
