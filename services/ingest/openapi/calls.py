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
    "ETag": {"description": "Stands for this state.", "schema": {"type": "string", "example": _EXAMPLE_ETAG}}
}
_IF_MATCH: Final = header("If-Match", "Change it only if it is in this state: 412 otherwise.", _EXAMPLE_ETAG)

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
        "A repeated command is the same command. One that names a duplicate is about the signature that it is a"
        " duplicate of. What can have no effect is refused (409); of two that cross on the way, the second may have none."
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
        "By id, those that are not published too. A token that is bound to organisations sees theirs.",
        parameters=(
            query("organisation", "Only those of this organisation.", SLUG_SCHEMA),
            query("after", "Only those whose id comes after this one.", SLUG_SCHEMA),
            query("limit", "At most so many.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
        ),
        answers={200: answer("The petitions.", "PetitionList")},
        refused=("starting", "invalid_fields"),
    ),
    Call(
        "GET",
        _PETITION,
        "petition",
        "A petition: what everyone may know of it, and all of it for its administrators",
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
            "The body is the whole new state, at most 768 KiB. A field that holds something now must be in it, also"
            " if it shall hold nothing (`fields_left_out`), unless the query says `replace=true`."
        ),
        parameters=(
            query("replace", "Whether what the body leaves out is erased.", {"type": "boolean", "default": False}),
            _IF_MATCH,
            header("If-None-Match", "`*`: create it, and change none that is there.", "*"),
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
        "A JSON merge patch (RFC 7396). The result is checked as a whole, as that of PUT is.",
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
            "A signer who has signed before gets the same answer. With `Accept: text/html`, as browsers' forms send"
            " it, success leads on to the petition's thank-you page, and a form that is refused to the petition's"
            " page, which shows it again with what was typed. A valid API key lifts the rate limit."
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
            f"At most {BODY_BYTES // 1024} KiB. In forms, an empty field is one that is not given. JSON is UTF-8; a"
            " form's text is read in the charset that it declares, UTF-8 where it declares none."
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
                "description": "Durable; on to the thank-you page (`Accept: text/html`).",
                "headers": location("The thank-you page. Its `signature` is the signature's id."),
            },
            307: {
                "description": (
                    "A form that is refused (`Accept: text/html`): the browser sends it again, to the petition's page."
                    " `refused` in the address is the problem's name, each `e` a wrong field and the code of what is"
                    " wrong with it, `wait` the seconds to wait."
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
            f"One JSON object a line (schema BatchLine), at most {BODY_BYTES // 1024} KiB each and 4 MiB in all. Valid"
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
        "What became of a signature",
        (
            "`submitted` means taken in and not decided yet. Without credentials a duplicate reads as the first"
            " signature would (`verified`, or `pending`): otherwise anyone could find out who signed. With"
            " `Accept: text/html` it is a page in words for the signer."
        ),
        anyone=True,
        partner=True,
        answers={
            200: answer(
                "Where it stands.",
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
    _command("withdraw", "The signer takes the signature back.", "command_without_effect", partner=True),
    _command("invalidate", "A moderator strikes the signature out.", "command_without_effect"),
    _command(
        "erase",
        "Erase who signed; the count stays",
        "invalid_fields",
        description=(
            "What links the signature to its signer goes, from its duplicates too; its state and the count stay. To take"
            " it out of the count as well, withdraw it first. Once it has been carried out, the status shows `erased_at`."
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
