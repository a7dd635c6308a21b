"""The rules by which a submission becomes a command. No I/O; the time is an argument.

Everything that depends only on the form and the petition is refused here, where the signer can correct it: the shape of the
form, the petition's rules (`shared.contract.eligibility`), and whether it takes signatures now. What depends on other
signatures, such as whether this one is a duplicate, is verify's decision.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.ingest.problems import FieldError, problem
from shared.contract.bounds.texts import (
    MOST_ACTOR,
    MOST_CHARACTERS,
    MOST_REASON,
    NOT_IN_A_LINE,
    NOT_IN_A_TEXT,
    Unfit,
    checked_line,
    checked_text,
    clean_address,
    clean_code,
    is_country_code,
)
from shared.contract.catalogue import Admission, admission_at
from shared.contract.eligibility import consent_refusal, country_refusal, email_refusal, name_refusal
from shared.contract.events import PetitionChanged, SignCommand
from shared.contract.form_errors import form_error
from shared.contract.identity import InvalidEmail, canonical_email, new_signature_id, retry_signature_id, signer_key
from shared.contract.mailboxes.providers import VERSIONS

MOST_IDEMPOTENCY_KEY: Final = 255
IDEMPOTENCY_KEY: Final = "^[!-~]+$"
"""Visible ASCII characters, as a regular expression."""
_IDEMPOTENCY_KEY: Final = re.compile(rb"[!-~]{1,%d}\Z" % MOST_IDEMPOTENCY_KEY)

_LINE: Final = rf"^[^{NOT_IN_A_LINE}]*$"
_FILLED_LINE: Final = rf"^[^{NOT_IN_A_LINE}]*[^\s{NOT_IN_A_LINE}]+$"
_TEXT: Final = rf"^[^{NOT_IN_A_TEXT}]*$"

_MOST_NAME: Final = MOST_CHARACTERS["name"]
_MOST_POSTCODE: Final = MOST_CHARACTERS["postcode"]
_MOST_COMMENT: Final = MOST_CHARACTERS["comment"]
_MOST_EMAIL: Final = MOST_CHARACTERS["email"]


def _described(least: int, most: int, **more: str) -> dict[str, Any]:
    """Length and pattern of a text, for the OpenAPI document. `admit` checks them on the cleaned text, in which a line break
    is one character, and so is a letter with its accents."""
    return {**({"minLength": least} if least else {}), "maxLength": most, **more}


class Submission(BaseModel):
    """A signer's submission: the body of ``POST /v1/petitions/{petition_id}/signatures``. Unknown fields are ignored."""

    # hide_input_in_errors: an exception's text may reach a log, and this is personal data.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    email: str = Field(
        description="Where the signer receives mail. It is never shown.",
        json_schema_extra=_described(3, _MOST_EMAIL, format="email"),
        repr=False,
    )
    name: str = Field(json_schema_extra=_described(1, _MOST_NAME, pattern=_FILLED_LINE), repr=False)
    country: str = Field(
        description="ISO 3166-1 alpha-2, in either case.", json_schema_extra=_described(2, 2, pattern="^[A-Za-z]{2}$")
    )
    postcode: Annotated[str, Field(json_schema_extra=_described(0, _MOST_POSTCODE, pattern=_LINE))] | None = Field(
        None, repr=False
    )
    comment: Annotated[str, Field(json_schema_extra=_described(0, _MOST_COMMENT, pattern=_TEXT))] | None = Field(
        None, repr=False
    )
    consent: bool = Field(False, description="Whether the signer agrees to what the petition asks consent for.")


class BatchLine(Submission):
    """One line of a batch: a submission, with an idempotency key if the partner's retries shall be safe."""

    idempotency_key: (
        Annotated[str, StringConstraints(min_length=1, max_length=MOST_IDEMPOTENCY_KEY, pattern=IDEMPOTENCY_KEY)] | None
    ) = Field(None, repr=False)


class Erasure(BaseModel):
    """Actor and reason of an erasure: the body of ``POST /v1/signatures/{signature_id}/erase``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    actor: str | None = Field(
        None,
        description="Who decided the erasure: a name or an account of your staff. Default: the name of the token.",
        json_schema_extra=_described(1, MOST_ACTOR, pattern=_FILLED_LINE),
        repr=False,
    )
    reason: str = Field(
        description="Why, such as the number of the request. It is stored: do not name the signer.",
        json_schema_extra=_described(1, MOST_REASON, pattern=_FILLED_LINE),
        repr=False,
    )


@dataclass(frozen=True, slots=True)
class Admitted:
    """A sign command and its signer key."""

    command: SignCommand
    signer: UUID

    @property
    def key(self) -> bytes:
        """The record key, which puts all commands of a signer into one lane."""
        return self.signer.hex.encode()


def require_open(petition: PetitionChanged | None, moment: datetime) -> PetitionChanged:
    """The petition, if it takes signatures at `moment`.

    Raises:
        Problem: it is unknown or not published, not open yet, closed, paused, or of a newer version of the mailbox rules.
    """
    if petition is None or not petition.published:
        raise problem("petition_unknown")
    if petition.mailbox_rules not in VERSIONS:
        raise problem("petition_newer")  # without those mailbox rules the signer key cannot be made
    admission = admission_at(petition, moment)
    if admission is Admission.OPEN:
        return petition
    if admission is Admission.NOT_YET_OPEN:
        raise problem(
            "petition_not_open_yet", detail=f"This petition takes signatures from {_readable(petition.opens_at)} on."
        )
    if petition.paused is not None and admission is Admission.PAUSED:
        raise problem("petition_paused", detail=petition.paused.sentence)
    raise problem("petition_closed", detail=f"This petition closed on {_readable(petition.closes_at)}.")


def admit(
    submission: Submission, *, petition: PetitionChanged, pepper: bytes, idempotency_key: str | None, moment: datetime
) -> Admitted:
    """Validate a submission and make the command that goes on the topic, with the cleaned texts.

    The e-mail address keeps its letter case (verify canonicalises it again); the signer key is made from the canonical
    address, by the petition's `mailbox_rules`. With an idempotency key, retries get the same signature id.

    Raises:
        Problem: 422, some fields are invalid.
    """
    errors: list[FieldError] = []
    email = clean_address(submission.email)
    canonical = _canonical(email, petition, errors)
    country = _country(submission.country, petition, errors)
    name = _name(submission.name, errors)
    postcode = comment = None
    if submission.postcode:
        postcode = _line("postcode", submission.postcode, _MOST_POSTCODE, errors) or None
    if submission.comment:
        comment = _comment(submission.comment, errors) or None
    if not submission.consent and (code := consent_refusal(petition.policy, consent=False)):
        errors.append(form_error("consent", code))
    if errors:
        raise problem("invalid_fields", errors=errors)
    signer = signer_key(pepper, petition.petition_id, canonical)
    signature_id = (
        new_signature_id(pepper) if idempotency_key is None else retry_signature_id(pepper, signer, idempotency_key)
    )
    command = SignCommand(
        signature_id=signature_id,
        petition_id=petition.petition_id,
        email=email,
        name=name,
        country=country,
        postcode=postcode,
        comment=comment,
        consent=submission.consent,
        submitted_at=moment,
    )
    return Admitted(command, signer)


def checked_erasure(erasure: Erasure, caller: str) -> Erasure:
    """Validate an erasure, and return it with cleaned texts.

    Args:
        caller: The name of the token, the default of `actor`.

    Raises:
        Problem: `actor` or `reason` is not one line of text.
    """
    errors: list[FieldError] = []
    actor = _line("actor", caller if erasure.actor is None else erasure.actor, MOST_ACTOR, errors, required=True)
    reason = _line("reason", erasure.reason, MOST_REASON, errors, required=True)
    if errors:
        raise problem("invalid_fields", errors=errors)
    return Erasure(actor=actor, reason=reason)


def valid_idempotency_key(header: bytes | None) -> str | None:
    """The value of an ``Idempotency-Key`` header, or None if there is none.

    Raises:
        Problem: it is not 1 to 255 visible ASCII characters.
    """
    if header is None:
        return None
    if not _IDEMPOTENCY_KEY.match(header):
        raise problem("idempotency_key_invalid")
    return header.decode("ascii")


def _readable(moment: datetime | None) -> str:
    assert moment is not None  # a petition without that time is neither closed nor not open yet
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _canonical(email: str, petition: PetitionChanged, errors: list[FieldError]) -> str:
    if len(email) > _MOST_EMAIL:
        errors.append(form_error("email", "too_long"))
        return ""
    try:
        canonical = canonical_email(email, petition.mailbox_rules)
    except InvalidEmail as error:
        errors.append(form_error("email", error.code if email else "blank"))
        return ""
    policy = petition.policy
    if policy.blocked_email_domains and (code := email_refusal(policy, canonical.rpartition("@")[2])):
        errors.append(form_error("email", code))
    return canonical


def _country(text: str, petition: PetitionChanged, errors: list[FieldError]) -> str:
    if text in petition.policy.eligible:  # nearly always
        return text
    country = clean_code(text)
    code = country_refusal(petition.policy, country) if is_country_code(country) else "not_a_country_code"
    if code is not None:
        errors.append(form_error("country", code))
    return country


def _name(text: str, errors: list[FieldError]) -> str:
    try:
        name = checked_line(text, _MOST_NAME, required=True)
    except Unfit as error:
        errors.append(form_error("name", error.code))
        return ""
    if code := name_refusal(name):
        errors.append(form_error("name", code))
    return name


def _line(field: str, text: str, most: int, errors: list[FieldError], *, required: bool = False) -> str:
    try:
        return checked_line(text, most, required=required)
    except Unfit as error:
        errors.append(form_error(field, error.code))
        return ""


def _comment(text: str, errors: list[FieldError]) -> str:
    try:
        return checked_text(text, _MOST_COMMENT)
    except Unfit as error:
        errors.append(form_error("comment", error.code))
        return ""
