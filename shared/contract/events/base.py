"""What all events are, and the types of their fields."""

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
"""ISO 3166-1 alpha-2, upper case; the code's existence is verify's rule (``country_unknown``), not its shape."""

EmailText = Annotated[str, StringConstraints(min_length=3, max_length=MOST_CHARACTERS["email"])]
"""An e-mail address, in any spelling."""


def cleaned_by(clean: Callable[[str], str]) -> BeforeValidator:
    """Puts a text into the form that is stored: a record on the topic may be older than these rules. What
    would be left empty stays as it is, so that no petition of before is lost; a new one is refused (see ingest)."""

    def cleaned(value: object) -> object:
        return (clean(value) or value) if isinstance(value, str) else value

    return BeforeValidator(cleaned)


def line(most: int) -> BeforeValidator:
    """Makes a text one line of at most so many characters, as `cleaned_by` does."""
    return cleaned_by(lambda text: clean_line(text, most))


def country_code(value: object) -> object:
    """Puts a country's code into upper case, and refuses what is none."""
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
"""A time of a petition: in UTC from here on, so that nothing later can fail to convert it."""

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
"""A well-formed language tag (RFC 5646, section 2.1; 35 letters are what section 4.4.1 asks readers to take). Whether its
parts are registered is checked where a petition is changed: the registry grows, and readers must not disagree about it."""


class Event(BaseModel):
    """The common ground of all events: immutable, strict types, unknown fields ignored."""

    # An error's text would repeat what was sent, and errors reach logs. The docstrings of fields are their descriptions in
    # the published schemas.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    TYPE: ClassVar[str]
