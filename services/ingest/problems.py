"""All refusals of ingest in one table: name, status, and the sentence for the client.

Rules and calls raise `problem`; only the request boundary answers it (`services.ingest.routes`, and for the hot call
`services.ingest.signing.sign`). The names are part of the API (the last part of a problem's ``type``), label the metric
``groundswell_ingest_refused_total``, and make the table of refusals in docs/openapi.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from shared.web import malformed
from shared.web.problems import Problem

FieldError = dict[str, str]
"""One invalid field: ``field``, ``code`` and ``problem``, a sentence. Never the value that was sent."""

WWW_AUTHENTICATE: Final = 'Bearer realm="groundswell"'


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of refusal."""

    status: int
    detail: str
    retry_after: int | None = None
    """Seconds. Clients of a surge retry together, so an overload's is long enough for the backlog to clear."""
    headers: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))


_THE_END: Final = MappingProxyType({"connection": "close"})
"""The connection cannot be reused: the rest of the body may still arrive, or its bytes cannot be trusted."""
_ASK_FOR_CREDENTIALS: Final = MappingProxyType({"www-authenticate": WWW_AUTHENTICATE})

KINDS: Final[dict[str, Kind]] = {
    "malformed_body": Kind(400, "The body could not be read as what its Content-Type says it is."),
    "idempotency_key_invalid": Kind(400, "Idempotency-Key must be 1 to 255 visible ASCII characters."),
    "malformed_request": Kind(400, malformed.DETAIL, headers=_THE_END),  # shared/web/connections.py gives it
    "credentials_ambiguous": Kind(400, "Send Authorization or X-API-Key, not both.", headers=_THE_END),
    "credentials_required": Kind(
        401, "This call needs credentials: Authorization: Bearer, or X-API-Key.", headers=_ASK_FOR_CREDENTIALS
    ),
    "credentials_wrong": Kind(401, "These credentials are not known here.", headers=_ASK_FOR_CREDENTIALS),
    "admin_only": Kind(403, "This call is for the administrator; a partner's API key is not enough."),
    "other_organisation": Kind(
        403, "These credentials are not for petitions of that organisation, or the id is taken."
    ),
    "not_found": Kind(404, "There is nothing at this address."),
    "petition_unknown": Kind(404, "There is no petition with this id."),
    "signature_unknown": Kind(404, "No signature with this id was submitted here."),
    "method_not_allowed": Kind(405, "This address does not answer to that method."),
    "body_too_slow": Kind(408, "The body did not arrive within ten seconds.", headers=_THE_END),
    "petition_not_open_yet": Kind(409, "This petition does not take signatures yet."),
    "petition_paused": Kind(409, "This petition takes no signatures for the time being."),
    "fields_left_out": Kind(
        409,
        "These fields hold something that the body would erase without naming it: see errors. Name them, with what they"
        " shall hold (null, [], none or false for nothing), change single fields with PATCH, or add ?replace=true.",
    ),
    "change_overtaken": Kind(
        409,
        "Somebody else changed this petition at the same moment. Get it again, and see whether the change is still due.",
    ),
    "signature_undecided": Kind(
        409, "This signature was accepted but is not decided yet; ask again in a moment.", retry_after=2
    ),
    "command_without_effect": Kind(409, "This command can change nothing about the signature."),
    "petition_closed": Kind(410, "This petition takes no more signatures."),
    "precondition_failed": Kind(
        412, "The petition is not in the state that If-Match or If-None-Match asks for: get it again."
    ),
    "body_too_large": Kind(413, "The body is larger than this call takes."),
    "too_many_lines": Kind(413, "A batch may have at most 1,000 lines."),
    "unsupported_content_type": Kind(415, "This call does not take that Content-Type."),
    "unsupported_content_encoding": Kind(
        415,
        "Send the body as it is, without Content-Encoding.",
        headers=MappingProxyType({"accept-encoding": "identity"}),  # RFC 9110 section 15.5.16
    ),
    "invalid_fields": Kind(422, "Some fields must be put right; see errors."),
    "too_many_requests": Kind(429, "This client has sent too many requests."),
    "too_many_wrong_credentials": Kind(
        429, "Too many wrong credentials came from this network. These were not checked: send them again later."
    ),
    "internal_error": Kind(500, "Something here is broken; it has been logged."),
    "overloaded": Kind(503, "More requests are in progress than this service takes at once.", retry_after=5),
    "starting": Kind(503, "The petitions are still being read.", retry_after=2),
    "petition_newer": Kind(
        503,
        "A newer version of this service made this petition, and this instance is about to be replaced. Send it again.",
        retry_after=5,
    ),
    "clock_wrong": Kind(
        503,
        "The clock of this service is wrong, and nothing is accepted until it is right. Send it again; with the same"
        " Idempotency-Key it counts once even if it did arrive.",
        retry_after=5,
    ),
    "kafka_away": Kind(
        503,
        "The signature could not be stored durably in time. Send it again; with the same Idempotency-Key it counts once"
        " even if it did arrive.",
        retry_after=5,
    ),
    "postgres_away": Kind(503, "Outcomes cannot be looked up right now.", retry_after=5),
    "record_away": Kind(
        503,
        "Nothing was changed: the record of it cannot be written right now, and nothing is without one.",
        retry_after=5,
    ),
    "change_unconfirmed": Kind(
        503,
        "The change is stored, and whether it holds is not known right now. Get the petition to see.",
        retry_after=5,
    ),
}


def problem(
    name: str, *, detail: str | None = None, errors: Sequence[FieldError] = (), retry_after: int | None = None
) -> Problem:
    """A refusal of one of `KINDS`, to be raised; `detail` and `retry_after` replace the table's values."""
    kind = KINDS[name]
    return Problem(
        kind.status,
        name,
        detail or kind.detail,
        errors=errors,
        retry_after=kind.retry_after if retry_after is None else retry_after,
        headers=kind.headers,
    )
