"""The base class of all events, and the types of their fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.contract.bounds.texts import COUNTRY_CODE, MOST_CHARACTERS, SLUG, clean_code, clean_line, is_country_code
from shared.contract.bounds.times import calendar_utc

Slug = Annotated[str, StringConstraints(pattern=rf"^{SLUG}$")]

PetitionId = Slug

CountryCode = Annotated[str, StringConstraints(pattern=rf"^{COUNTRY_CODE}$")]
"""ISO 3166-1 alpha-2, upper case. This type validates the form only; whether the country exists is verify's rule
(``country_unknown``)."""

EmailText = Annotated[str, StringConstraints(min_length=3, max_length=MOST_CHARACTERS["email"])]
"""An e-mail address, in any spelling."""


def cleaned_by(clean: Callable[[str], str]) -> BeforeValidator:
    """Return a validator that puts a text into the form that is stored: a record on the topic may be older than these
    rules. A text that would become empty is kept, so that no older petition is lost; ingest refuses a new one."""

    def cleaned(value: object) -> object:
        return (clean(value) or value) if isinstance(value, str) else value

    return BeforeValidator(cleaned)


def line(most: int) -> BeforeValidator:
    """Return a validator that cleans a one-line text of at most `most` characters, as `cleaned_by` does."""
    return cleaned_by(lambda text: clean_line(text, most))


def country_code(value: object) -> object:
    """Put a country code into upper case.

    Raises:
        PydanticCustomError: it does not have the form of a country code.
    """
    code = clean_code(value) if isinstance(value, str) else value
    if isinstance(code, str) and not is_country_code(code):
        raise PydanticCustomError("not_a_country_code", "must be a country code of two letters")
    return code


def _in_calendar(moment: datetime) -> datetime:
    utc = calendar_utc(moment)
    if utc is None:
        raise PydanticCustomError("time_out_of_range", "must be in the years 1 to 9999 in UTC")
    return utc


PetitionTime = Annotated[AwareDatetime, AfterValidator(_in_calendar)]
"""A time of a petition, converted to UTC, so that no later conversion can fail."""

_LANGUAGE: Final = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"


def _well_formed(language: str) -> str:
    if not re.fullmatch(_LANGUAGE, language):
        raise ValueError("must be a language tag (BCP 47), such as nl, pt-BR or ar")
    return language


Language = Annotated[
    str,
    StringConstraints(max_length=35),
    AfterValidator(_well_formed),
    Field(json_schema_extra={"pattern": _LANGUAGE}),
]
"""A well-formed language tag (RFC 5646, section 2.1; section 4.4.1 requires readers to accept 35 characters). Whether its
parts are registered is checked only when a petition is changed: the registry grows, and readers must not disagree."""


class Event(BaseModel):
    """Base class of all events: immutable, strict types, unknown fields ignored."""

    # Error messages must not show input, because they reach logs. The docstrings of fields are their descriptions in the
    # published schemas.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    TYPE: ClassVar[str]
