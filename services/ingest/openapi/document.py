"""ingest's OpenAPI 3.1 document, made from the models that read and write the bodies and from the table of refusals.

``python -m services.ingest.openapi.document > docs/openapi.json`` writes the committed copy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

from services.ingest.openapi import petitions as openapi_petitions
from services.ingest.openapi.parts import (
    ADMIN,
    AUTHORISED,
    CREDENTIALS,
    EXAMPLE_PETITION,
    EXAMPLE_SIGNATURE,
    PUBLISHING,
    READING,
    Json,
    answer,
    location,
    petition_id,
    ref,
    refusals,
    schemas,
    signature_id,
)
from services.ingest.signing.admission import IDEMPOTENCY_KEY, MOST_IDEMPOTENCY_KEY
from services.ingest.signing.batch import CONTENT_TYPES
from services.ingest.signing.sign import BODY_BYTES

_EXAMPLE_SUBMISSION: Final[Json] = {
    "email": "robin@mail.example",
    "name": "Robin Example",
    "country": "NL",
    "postcode": "1011 AB",
    "comment": "I would take it every month.",
    "consent": True,
}

_RATE_LIMITED: Final = (*CREDENTIALS, "too_many_requests")
_SIGNING: Final = (
    "petition_unknown",
    "petition_not_open_yet",
    "petition_paused",
    "petition_closed",
    "petition_newer",
    "starting",
    "clock_wrong",
)
_LOOKING_UP: Final = ("signature_unknown", "postgres_away")

_PARTNER: Final[list[Json]] = [*ADMIN, {"api_key": []}]
_ANYONE_OR_PARTNER: Final[list[Json]] = [{}, *_PARTNER]


def document() -> Json:
    """The OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Groundswell ingest",
            "version": "1.0.0",
            "summary": "Takes petition signatures in.",
            "description": (
                "An accepted signature is durable: the answer 202 comes after Kafka's acknowledgement. What becomes of"
                " it is decided a moment later; ask for it at its `status_url`. Errors are problem details (RFC 9457);"
                " the last part of `type` names the problem. 429 and 503 carry `Retry-After`."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "signatures", "description": "Sign, and what became of it."},
            {"name": "petitions", "description": "What can be signed."},
        ],
        "paths": {
            "/v1/petitions": openapi_petitions.petitions(),
            "/v1/petitions/{petition_id}": openapi_petitions.petition(),
            "/v1/petitions/{petition_id}/signatures": _sign(),
            "/v1/petitions/{petition_id}/signatures/batch": _batch(),
            "/v1/signatures/{signature_id}": _status(),
            "/v1/signatures/{signature_id}/confirm": _command(
                "confirm", "The signer's e-mail address is confirmed: a pending signature becomes verified.", _PARTNER
            ),
            "/v1/signatures/{signature_id}/withdraw": _command(
                "withdraw", "The signer takes the signature back.", _PARTNER
            ),
            "/v1/signatures/{signature_id}/invalidate": _command(
                "invalidate", "A moderator strikes the signature out.", ADMIN
            ),
            "/v1/signatures/{signature_id}/erase": _erase(),
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An administrator's token, or a partner's API key.",
                },
                "api_key": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-API-Key",
                    "description": "A partner's API key.",
                },
            },
        },
    }


def _sign() -> Json:
    schema = ref("Submission")
    return {
        "parameters": [petition_id()],
        "post": {
            "operationId": "sign",
            "tags": ["signatures"],
            "summary": "Sign a petition",
            "description": (
                "A signer who has signed before gets the same answer. With `Accept: text/html`, as browsers' forms send"
                " it, success leads on to the petition's thank-you page, and a form that is refused to the petition's"
                " page, which shows it again with what was typed. A valid API key lifts the rate limit."
            ),
            "security": _ANYONE_OR_PARTNER,
            "parameters": [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "description": "The same signer with the same key is the same signature, however often it is sent.",
                    "schema": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MOST_IDEMPOTENCY_KEY,
                        "pattern": IDEMPOTENCY_KEY,
                    },
                    "example": "5b0f6a2e-form-1",
                }
            ],
            "requestBody": {
                "required": True,
                "description": (
                    f"At most {BODY_BYTES // 1024} KiB. In forms, an empty field is one that is not given. JSON is UTF-8; a"
                    " form's text is read in the charset that it declares, UTF-8 where it declares none."
                ),
                "content": {
                    "application/json": {"schema": schema, "example": _EXAMPLE_SUBMISSION},
                    "application/x-www-form-urlencoded": {
                        "schema": ref("SubmissionForm"),
                        "example": {**_EXAMPLE_SUBMISSION, "consent": "on"},
                    },
                    "multipart/form-data": {
                        "schema": ref("SubmissionForm"),
                        "example": {**_EXAMPLE_SUBMISSION, "consent": "on"},
                    },
                },
            },
            "responses": {
                "202": answer(
                    "Durable; it will be decided.",
                    "SignatureSubmitted",
                    {
                        "signature_id": EXAMPLE_SIGNATURE,
                        "status": "submitted",
                        "status_url": f"/v1/signatures/{EXAMPLE_SIGNATURE}",
                    },
                    headers=location("Where to ask for the outcome."),
                ),
                "303": {
                    "description": "Durable; on to the thank-you page (`Accept: text/html`).",
                    "headers": location("The thank-you page. Its `signature` is the signature's id."),
                },
                "307": {
                    "description": (
                        "A form that is refused (`Accept: text/html`): the browser sends it again, to the petition's page."
                        " `refused` in the address is the problem's name, each `e` a wrong field and the code of what is"
                        " wrong with it, `wait` the seconds to wait."
                    ),
                    "headers": location("The petition's page."),
                },
                **refusals(
                    *_RATE_LIMITED,
                    *_SIGNING,
                    *READING,
                    "idempotency_key_invalid",
                    "invalid_fields",
                    *PUBLISHING,
                ),
            },
        },
    }


def _batch() -> Json:
    line = json.dumps({**_EXAMPLE_SUBMISSION, "idempotency_key": "import-1-line-1"})
    return {
        "parameters": [petition_id()],
        "post": {
            "operationId": "sign_batch",
            "tags": ["signatures"],
            "summary": "Send up to 1,000 signatures",
            "description": (
                f"One JSON object a line (schema BatchLine), at most {BODY_BYTES // 1024} KiB each and 4 MiB in all. Valid"
                " lines are accepted even if others are not. A line with status 503 was not acknowledged: send it again with the"
                " same `idempotency_key`."
            ),
            "security": _PARTNER,
            "requestBody": {
                "required": True,
                "content": {
                    kind.decode(): {"schema": {"type": "string", "pattern": "\\S"}, "example": f"{line}\n"}
                    for kind in CONTENT_TYPES
                },
            },
            "responses": {
                "207": answer("One result per line.", "BatchAnswer"),
                **refusals(*AUTHORISED, *_SIGNING, *READING, "too_many_lines"),
            },
        },
    }


def _status() -> Json:
    return {
        "parameters": [signature_id()],
        "get": {
            "operationId": "signature_status",
            "tags": ["signatures"],
            "summary": "What became of a signature",
            "description": (
                "`submitted` means taken in and not decided yet. Without credentials a duplicate reads as the first"
                " signature would (`verified`, or `pending`): otherwise anyone could find out who signed. With"
                " `Accept: text/html` it is a page in words for the signer."
            ),
            "security": _ANYONE_OR_PARTNER,
            "responses": {
                "200": answer(
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
                ),
                **refusals(*_RATE_LIMITED, *_LOOKING_UP, "starting", html=True),
            },
        },
    }


def _command(name: str, summary: str, security: Sequence[Json], *further: str) -> Json:
    refused = [*AUTHORISED, *_LOOKING_UP, "starting", "signature_undecided", *further, *PUBLISHING, "record_away"]
    if name != "erase":
        refused.append("command_without_effect")
    if security is ADMIN:
        refused.append("admin_only")
    return {
        "parameters": [signature_id()],
        "post": {
            "operationId": f"{name}_signature",
            "tags": ["signatures"],
            "summary": summary,
            "description": (
                "A repeated command is the same command. One that names a duplicate is about the signature that it is a"
                " duplicate of. What can have no effect is refused (409); of two that cross on the way, the second may"
                " have none."
            ),
            "security": security,
            "responses": {
                "202": answer(
                    "Durable; it will be carried out.",
                    "CommandSubmitted",
                    headers=location("Where to ask for the outcome."),
                ),
                **refusals(*refused),
            },
        },
    }


def _erase() -> Json:
    path = _command("erase", "Erase who signed; the count stays", ADMIN, *READING, "invalid_fields")
    path["post"] |= {
        "description": (
            "What links the signature to its signer goes, from its duplicates too; its state and the count stay. To take"
            " it out of the count as well, withdraw it first. Once it has been carried out, the status shows `erased_at`."
            " A repeated command is the same command: the first actor and reason are kept."
        ),
        "requestBody": {
            "required": True,
            "description": "At most 16 KiB.",
            "content": {
                "application/json": {
                    "schema": ref("Erasure"),
                    "example": {"actor": "Kim, helpdesk", "reason": "Request 4711 of 22 November"},
                }
            },
        },
    }
    return path


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
