"""The rules by which a submission becomes a command. Pure: no I/O, the moment is given.

What is decided here is only what the signer can put right at once: the shape of the form, and whether the petition takes
signatures now. Whether a signature stands (duplicates, policy, countries that do not exist) is verify's decision.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

import langcodes
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from shared.catalogue import Admission, admission_at
from shared.events import NOT_IN_A_LINE, EmailText, PetitionChanged, PetitionState, SignCommand
from shared.identity import InvalidEmail, canonical_email, new_signature_id, retry_signature_id, signer_key

# Line breaks and tabs are allowed in texts of several lines only. The others have no place in what people write.
_IN_NEITHER: Final = NOT_IN_A_LINE.removeprefix(r"\x00-\x1f")
_NOT_IN_TEXT: Final = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f{_IN_NEITHER}]")
_NOT_IN_LINE: Final = re.compile(rf"[{NOT_IN_A_LINE}]")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}\Z")
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}\Z")


class Submission(BaseModel):
    """What a signer sends: the body of ``POST /v1/petitions/{petition_id}/signatures``. Unknown fields are ignored."""

    # hide_input_in_errors: an exception's text may reach a log, and this is personal data.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    # The patterns are for the OpenAPI document only; `admit` checks the same, and says it in words for people.
    email: Annotated[
        EmailText,
        Field(
            description="Where the signer receives mail. It is never shown.",
            json_schema_extra={"format": "email"},
            repr=False,
        ),
    ]
    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=200),
        Field(json_schema_extra={"pattern": rf"^[^\x00-\x1f{_IN_NEITHER}]*[^\s\x00-\x1f{_IN_NEITHER}]+$"}, repr=False),
    ]
    country: Annotated[
        str,
        StringConstraints(min_length=2, max_length=2),
        Field(description="ISO 3166-1 alpha-2, in either case.", json_schema_extra={"pattern": "^[A-Za-z]{2}$"}),
    ]
    postcode: (
        Annotated[
            str,
            StringConstraints(max_length=20),
            Field(json_schema_extra={"pattern": rf"^[^\x00-\x1f{_IN_NEITHER}]*$"}),
        ]
        | None
    ) = Field(None, repr=False)
    comment: (
        Annotated[
            str,
            StringConstraints(max_length=2000),
            Field(json_schema_extra={"pattern": rf"^[^\x00-\x08\x0b\x0c\x0e-\x1f{_IN_NEITHER}]*$"}),
        ]
        | None
    ) = Field(None, repr=False)
    consent: bool = Field(False, description="Whether the signer agrees to what the petition asks consent for.")


class BatchLine(Submission):
    """One line of a batch: a submission and, if the partner wants retries to be safe, its idempotency key."""

    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[!-~]+$")] | None = (
        Field(None, repr=False)
    )


_OPERATORS_LINE: Final = rf"^[^{NOT_IN_A_LINE}]*[^\s{NOT_IN_A_LINE}]+$"


class Erasure(BaseModel):
    """Who has a signature erased, and why: the body of ``POST /v1/signatures/{signature_id}/erase``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    # As above, the patterns are for the document only.
    actor: Annotated[
        str,
        StringConstraints(min_length=1, max_length=100),
        Field(
            description="Who decided it, in your own words: a name or an account of your staff.",
            json_schema_extra={"pattern": _OPERATORS_LINE},
            repr=False,
        ),
    ]
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=500),
        Field(
            description="Why, such as the number of the request. It is kept: do not name the signer.",
            json_schema_extra={"pattern": _OPERATORS_LINE},
            repr=False,
        ),
    ]


FieldError = dict[str, str]
"""A ``field`` that must be put right, and the ``problem`` with it; never with the value that was sent."""


class NotAdmitted(Exception):
    """The submission is refused. ``reason`` names one of `services.ingest.problems.KINDS`."""

    def __init__(self, reason: str, *, detail: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.errors = reason, detail, errors


@dataclass(frozen=True, slots=True)
class Admitted:
    """A command and whose it is."""

    command: SignCommand
    signer: UUID

    @property
    def key(self) -> bytes:
        """The record key: all commands of one signer meet in one lane."""
        return self.signer.hex.encode()


def require_open(petition: PetitionChanged | None, moment: datetime) -> PetitionChanged:
    """The petition, if it takes signatures at `moment`.

    Raises:
        NotAdmitted: it is unknown, not open yet, or closed.
    """
    if petition is None:
        raise NotAdmitted("petition_unknown")
    admission = admission_at(petition, moment)
    if admission is Admission.OPEN:
        return petition
    if admission is Admission.NOT_YET_OPEN:
        raise NotAdmitted(
            "petition_not_open_yet", detail=f"This petition takes signatures from {_readable(petition.opens_at)} on."
        )
    raise NotAdmitted("petition_closed", detail=f"This petition closed on {_readable(petition.closes_at)}.")


def admit(
    submission: Submission, *, petition_id: str, pepper: bytes, idempotency_key: str | None, moment: datetime
) -> Admitted:
    """Turn a well-formed submission into the command that goes on the topic.

    The e-mail address stays as typed (it is how the signer writes it, and verify canonicalises it again); the signer key
    is made from its canonical spelling. With an idempotency key the signature's id is the same at every retry.

    Raises:
        NotAdmitted: some fields must be put right.
        pydantic.ValidationError: Unicode normalisation made a text longer than it may be.
    """
    errors: list[FieldError] = []
    canonical = ""
    try:
        canonical = canonical_email(submission.email)
    except InvalidEmail as error:
        errors.append(_error("email", str(error)))
    if not _COUNTRY.match(submission.country):
        errors.append(_error("country", "must be a country code of two letters, such as NL"))
    name = _one_line("name", submission.name, errors, required=True)
    postcode = _one_line("postcode", submission.postcode or "", errors) or None
    comment = _text("comment", submission.comment or "", errors) or None
    if errors:
        raise NotAdmitted("invalid_fields", errors=tuple(errors))
    signer = signer_key(pepper, petition_id, canonical)
    signature_id = (
        new_signature_id(pepper) if idempotency_key is None else retry_signature_id(pepper, signer, idempotency_key)
    )
    command = SignCommand(
        signature_id=signature_id,
        petition_id=petition_id,
        email=submission.email.strip(),
        name=name,
        country=submission.country.upper(),
        postcode=postcode,
        comment=comment,
        consent=submission.consent,
        submitted_at=moment,
    )
    return Admitted(command, signer)


def checked_erasure(erasure: Erasure) -> Erasure:
    """The same, as it is written down.

    Raises:
        NotAdmitted: `actor` or `reason` is not one line of text.
        pydantic.ValidationError: Unicode normalisation made one of them longer than it may be.
    """
    errors: list[FieldError] = []
    actor = _one_line("actor", erasure.actor, errors, required=True)
    reason = _one_line("reason", erasure.reason, errors, required=True)
    if errors:
        raise NotAdmitted("invalid_fields", errors=tuple(errors))
    return Erasure(actor=actor, reason=reason)


def valid_idempotency_key(header: bytes | None) -> str | None:
    """The value of an ``Idempotency-Key`` header, or None when there is none.

    Raises:
        NotAdmitted: it is not 1 to 255 visible ASCII characters.
    """
    if header is None:
        return None
    if not _IDEMPOTENCY_KEY.match(header):
        raise NotAdmitted("idempotency_key_invalid")
    return header.decode("ascii")


def petition_errors(state: PetitionState) -> tuple[FieldError, ...]:
    """What the model of a petition cannot see: addresses that no mail reaches, characters that do not belong in a line, and
    languages that nobody has registered.

    A line break in a title would otherwise end up in the headers of a mail.
    """
    errors: list[FieldError] = []
    _one_line("organisation.name", state.organisation.name, errors, required=True)
    _one_line("title", state.title, errors, required=True)
    _text("text", state.text, errors)
    for index, target in enumerate(state.targets):
        _one_line(f"targets.{index}.name", target.name, errors, required=True)
        try:
            canonical_email(target.email)
        except InvalidEmail as error:
            errors.append(_error(f"targets.{index}.email", str(error)))
    if state.language is not None and not langcodes.tag_is_valid(state.language):
        problem = "must be a registered language tag (BCP 47), such as nl, pt-BR or ar"
        errors.append({"field": "language", "code": "language_unknown", "problem": problem})
    return tuple(errors)


def _readable(moment: datetime | None) -> str:
    assert moment is not None  # only a petition with that time can be closed, or not open yet
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _error(field: str, problem: str) -> FieldError:
    return {"field": field, "problem": problem}


def _one_line(field: str, text: str, errors: list[FieldError], *, required: bool = False) -> str:
    if text.isascii() and text.isprintable():  # nearly every line, and there is nothing to normalise
        line = text.strip()
    elif _NOT_IN_LINE.search(text):
        errors.append(_error(field, "must not contain line breaks or control characters"))
        return ""
    else:
        line = unicodedata.normalize("NFC", text).strip()
    if required and not line:
        errors.append(_error(field, "must not be empty"))
    return line


def _text(field: str, text: str, errors: list[FieldError]) -> str:
    if _NOT_IN_TEXT.search(text):
        errors.append(_error(field, "must not contain control characters"))
        return ""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").strip()
