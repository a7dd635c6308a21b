"""Rules for a new state of a petition beyond its schema: policies that can match, readable texts, valid mail addresses.

They apply to writers of petitions, not to readers: a record on the topic may be older than a rule. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import langcodes

from services.ingest.problems import FieldError
from shared.contract.bounds.texts import (
    MOST_OFFICE,
    MOST_PAUSE,
    MOST_TEXT,
    MOST_TITLE,
    Unfit,
    checked_line,
    checked_text,
)
from shared.contract.countries import COUNTRIES
from shared.contract.events import PetitionState
from shared.contract.form_errors import form_error
from shared.contract.identity import InvalidEmail, is_domain
from shared.contract.mail_address import mailable

_OFTEN_MEANT: Final = {"UK": "GB", "EL": "GR", "EN": "GB"}
"""Codes in use that ISO 3166-1 does not assign to a country, with the intended code."""


def petition_errors(state: PetitionState) -> tuple[FieldError, ...]:
    """Errors by field that the petition's model does not find.

    A line break in a title would otherwise get into the headers of a mail; a country that does not exist, or a domain that
    no address can have, would be a rule without effect, or one that no signer can meet.
    """
    errors: list[FieldError] = []
    _check("organisation.name", checked_line, state.organisation.name, MOST_OFFICE, errors)
    _check("title", checked_line, state.title, MOST_TITLE, errors)
    _check("text", checked_text, state.text, MOST_TEXT, errors)
    if state.paused is not None:
        _check("paused.sentence", checked_line, state.paused.sentence, MOST_PAUSE, errors)
    for index, target in enumerate(state.targets):
        _check(f"targets.{index}.name", checked_line, target.name, MOST_OFFICE, errors)
        try:
            mailable(target.email)
        except InvalidEmail as error:
            errors.append(form_error(f"targets.{index}.email", error.code))
    _check_countries(state.policy.countries, errors)
    for index, domain in enumerate(state.policy.blocked_email_domains):
        if not is_domain(domain):
            errors.append(_no_domain(f"policy.blocked_email_domains.{index}", domain))
    if state.language is not None and not langcodes.tag_is_valid(state.language):
        errors.append(
            _error(
                "language", "language_unknown", "This is no registered language tag (BCP 47), such as nl, pt-BR or ar."
            )
        )
    return tuple(errors)


def _check(field: str, rule: Callable[..., str], text: str, most: int, errors: list[FieldError]) -> None:
    try:
        rule(text, most, required=True)
    except Unfit as error:
        errors.append(form_error(field, error.code))


def _check_countries(countries: list[str] | None, errors: list[FieldError]) -> None:
    if countries is None:
        return
    field = "policy.countries"
    if not countries:
        errors.append(
            _error(
                field, "no_country", "An empty list counts nobody: name the countries, or send null for all of them."
            )
        )
    for index, country in enumerate(countries):
        if country not in COUNTRIES:
            errors.append(_error(f"{field}.{index}", "country_unknown", _meant(country)))


def _meant(country: str) -> str:
    meant = _OFTEN_MEANT.get(country)
    if meant is not None:
        return f"There is no country with this code; {COUNTRIES[meant]} is {meant}."
    return "There is no country with this code (ISO 3166-1 alpha-2)."


def _no_domain(field: str, text: str) -> FieldError:
    if "@" in text:
        meant = "This is an address. Only whole domains can be blocked: write what follows the @."
    elif "/" in text or ":" in text:
        meant = "This is a web address. Write the domain alone, such as mail.example."
    elif "*" in text:
        meant = "A domain blocks everything below it; * can only be all of the first label, as in *.mail.example."
    else:
        meant = "This is no domain that an e-mail address can have. Write one such as mail.example."
    return _error(field, "not_a_domain", meant)


def _error(field: str, code: str, problem: str) -> FieldError:
    return {"field": field, "code": code, "problem": problem}
