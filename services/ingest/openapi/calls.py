"""All calls of ingest with descriptions and examples: what its OpenAPI document cannot take from models and tables."""

from __future__ import annotations

import json
from typing import Final

from services.ingest.openapi.parts import (
    EXAMPLE_PETITION,
    EXAMPLE_SIGNATURE,
    SLUG_SCHEMA,
    Call,
    Json,
    answer,
    header,
    location,
    query,
    ref,
)
from services.ingest.signing.admission import IDEMPOTENCY_KEY, MOST_IDEMPOTENCY_KEY
from services.ingest.signing.batch import CONTENT_TYPES
from services.ingest.signing.sign import BODY_BYTES

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

_CHANGED_STATE: Final[Json] = {
    **_EXAMPLE_STATE,
    "petition_id": EXAMPLE_PETITION,
    "changed_at": "2026-11-22T10:42:07Z",
    "version": 1795344127000,
}
_SUBMISSION: Final[Json] = {
    "email": "robin@mail.example",
    "name": "Robin Example",
    "country": "NL",
    "postcode": "1011 AB",
    "comment": "I would take it every month.",
    "consent": True,
}
_LINE: Final = json.dumps({**_SUBMISSION, "idempotency_key": "import-1-line-1"})
_FORM: Final[Json] = {"schema": ref("SubmissionForm"), "example": {**_SUBMISSION, "consent": "on"}}

_ETAG: Final[Json] = {
    "ETag": {"description": "Identifies this state.", "schema": {"type": "string", "example": _EXAMPLE_ETAG}}
}
_IF_MATCH: Final = header("If-Match", "Change the petition only if it is in this state; otherwise 412.", _EXAMPLE_ETAG)

_PETITIONS: Final = "/v1/petitions"
_PETITION: Final = f"{_PETITIONS}/{{petition_id}}"
_SIGNATURE: Final = "/v1/signatures/{signature_id}"

_PUBLISHING: Final = ("kafka_away", "clock_wrong")
_CHANGING: Final = (
    "starting",
    "invalid_fields",
    *_PUBLISHING,
    "record_away",
    "change_unconfirmed",
    "change_overtaken",
    "precondition_failed",
    "other_organisation",
)
_SIGNING: Final = (
    "petition_unknown",
    "petition_not_open_yet",
    "petition_paused",
    "petition_closed",
    "petition_newer",
    "starting",
    "clock_wrong",
)
_LOOKING_UP: Final = ("signature_unknown", "postgres_away", "starting")
_COMMANDING: Final = (*_LOOKING_UP, "signature_undecided", *_PUBLISHING, "record_away")


def _command(
    name: str,
    summary: str,
    *more: str,
    description: str = (
        "A repeated command is the same command. One that names a duplicate applies to the original signature. A command"
        " that can have no effect is refused (409); of two concurrent commands, the second may have none."
    ),
    partner: bool = False,
    body: Json | None = None,
    body_is: str = "",
) -> Call:
    return Call(
        "POST",
        f"{_SIGNATURE}/{name}",
        f"{name}_signature",
        summary,
        description,
        partner=partner,
        body=body or {},
        body_is=body_is,
        answers={
            202: answer(
                "Durable; it will be carried out.",
                "CommandSubmitted",
                headers=location("Where to ask for the outcome."),
            )
        },
        refused=(*_COMMANDING, *more),
    )


CALLS: Final = (
    Call(
        "GET",
        _PETITIONS,
        "petitions",
        "The petitions that an administrator may change",
        "By id, including unpublished ones. A token that is limited to organisations gets only theirs.",
        parameters=(
            query("organisation", "Only petitions of this organisation.", SLUG_SCHEMA),
            query("after", "Only petitions with a greater id.", SLUG_SCHEMA),
            query(
                "limit", "Most petitions to return.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}
            ),
        ),
        answers={200: answer("The petitions.", "PetitionList")},
        refused=("starting", "invalid_fields"),
    ),
    Call(
        "GET",
        _PETITION,
        "petition",
        "A petition: its public part, or all of it for its administrators",
        anyone=True,
        answers={
            200: {
                "description": "The petition; with an administrator's token, its whole state and an ETag.",
                "headers": _ETAG,
                "content": {"application/json": {"schema": {"anyOf": [ref("PublicPetition"), ref("PetitionChanged")]}}},
            },
            304: {"description": "It is in the state that If-None-Match names (administrators)."},
        },
        refused=("petition_unknown", "starting"),
    ),
    Call(
        "PUT",
        _PETITION,
        "change_petition",
        "Create a petition, or replace its whole state",
        (
            "The body is the whole new state, at most 768 KiB. A field that is set now must be in it, even to clear it"
            " (otherwise `fields_left_out`), unless the query has `replace=true`."
        ),
        parameters=(
            query(
                "replace", "Whether fields that the body leaves out are cleared.", {"type": "boolean", "default": False}
            ),
            _IF_MATCH,
            header("If-None-Match", "`*`: create the petition, and do not change an existing one.", "*"),
        ),
        body={"application/json": {"schema": ref("PetitionBody"), "example": _EXAMPLE_STATE}},
        answers={
            200: answer("Changed.", "PetitionChanged", _CHANGED_STATE, headers=_ETAG),
            201: answer("Created.", "PetitionChanged", _CHANGED_STATE, headers=_ETAG),
        },
        refused=(*_CHANGING, "fields_left_out"),
    ),
    Call(
        "PATCH",
        _PETITION,
        "patch_petition",
        "Change what the body names",
        "A JSON merge patch (RFC 7396). The result is validated as a whole, as for PUT.",
        parameters=(_IF_MATCH,),
        body={
            "application/merge-patch+json": {
                "schema": ref("PetitionPatch"),
                "example": {"paused": {"sentence": "Signing is back on Monday."}},
            }
        },
        answers={200: answer("Changed.", "PetitionChanged", _CHANGED_STATE, headers=_ETAG)},
        refused=(*_CHANGING, "petition_unknown"),
    ),
    Call(
        "POST",
        f"{_PETITION}/signatures",
        "sign",
        "Sign a petition",
        (
            "A signer who has signed before gets the same answer. With `Accept: text/html`, as sent by browsers' forms,"
            " success redirects to the petition's thank-you page, and a refusal to the petition's page, which shows the"
            " form again with its input. Calls with a valid API key are not rate limited."
        ),
        anyone=True,
        partner=True,
        parameters=(
            header(
                "Idempotency-Key",
                "The same signer with the same key is the same signature, however often it is sent.",
                "5b0f6a2e-form-1",
                minLength=1,
                maxLength=MOST_IDEMPOTENCY_KEY,
                pattern=IDEMPOTENCY_KEY,
            ),
        ),
        body={
            "application/json": {"schema": ref("Submission"), "example": _SUBMISSION},
            "application/x-www-form-urlencoded": _FORM,
            "multipart/form-data": _FORM,
        },
        body_is=(
            f"At most {BODY_BYTES // 1024} KiB. In forms, an empty field counts as not given. JSON is UTF-8; a"
            " form's text is decoded by the charset that it declares, or as UTF-8 without one."
        ),
        answers={
            202: answer(
                "Durable; it will be decided.",
                "SignatureSubmitted",
                {
                    "signature_id": EXAMPLE_SIGNATURE,
                    "status": "submitted",
                    "status_url": f"/v1/signatures/{EXAMPLE_SIGNATURE}",
                },
                headers=location("Where to ask for the outcome."),
            ),
            303: {
                "description": "Durable; redirects to the thank-you page (`Accept: text/html`).",
                "headers": location("The thank-you page. Its `signature` is the signature's id."),
            },
            307: {
                "description": (
                    "A refused form (`Accept: text/html`): the browser sends it again, to the petition's page. In the"
                    " query, `refused` is the problem's name, each `e` an invalid field with its error code, and `wait`"
                    " the seconds to wait."
                ),
                "headers": location("The petition's page."),
            },
        },
        refused=("too_many_requests", *_SIGNING, "idempotency_key_invalid", "invalid_fields", "kafka_away"),
    ),
    Call(
        "POST",
        f"{_PETITION}/signatures/batch",
        "sign_batch",
        "Send up to 1,000 signatures",
        (
            f"One JSON object per line (schema BatchLine), at most {BODY_BYTES // 1024} KiB each and 4 MiB in all. Valid"
            " lines are accepted even if others are not. A line with status 503 was not acknowledged: send it again with the"
            " same `idempotency_key`."
        ),
        partner=True,
        body={
            kind.decode(): {"schema": {"type": "string", "pattern": "\\S"}, "example": f"{_LINE}\n"}
            for kind in CONTENT_TYPES
        },
        answers={207: answer("One result per line.", "BatchAnswer")},
        refused=(*_SIGNING, "too_many_lines"),
    ),
    Call(
        "GET",
        _SIGNATURE,
        "signature_status",
        "The status of a signature",
        (
            "`submitted` means accepted and not decided yet. Without credentials, a duplicate is shown with the state of a"
            " first signature (`verified`, or `pending`): otherwise anyone could find out who signed. With"
            " `Accept: text/html` the answer is a page for the signer."
        ),
        anyone=True,
        partner=True,
        answers={
            200: answer(
                "The status.",
                "SignatureStatus",
                {
                    "signature_id": EXAMPLE_SIGNATURE,
                    "petition_id": EXAMPLE_PETITION,
                    "status": "rejected",
                    "reason": "petition_closed",
                    "decided_at": "2026-11-22T10:42:07Z",
                    "erased_at": None,
                },
                html=True,
            )
        },
        refused=("too_many_requests", *_LOOKING_UP),
        html=True,
    ),
    _command(
        "confirm",
        "The signer's e-mail address is confirmed: a pending signature becomes verified.",
        "command_without_effect",
        partner=True,
    ),
    _command("withdraw", "The signer withdraws the signature.", "command_without_effect", partner=True),
    _command("invalidate", "An administrator invalidates the signature.", "command_without_effect"),
    _command(
        "erase",
        "Erase the signer; the count stays",
        "invalid_fields",
        description=(
            "Removes what links the signature and its duplicates to the signer; state and count stay. To remove it from"
            " the count as well, withdraw it first. After the erasure, the status shows `erased_at`."
            " A repeated command is the same command: the first actor and reason are kept."
        ),
        body={
            "application/json": {
                "schema": ref("Erasure"),
                "example": {"actor": "Kim, helpdesk", "reason": "Request 4711 of 22 November"},
            }
        },
        body_is="At most 16 KiB.",
    ),
)
