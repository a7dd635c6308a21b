"""Every error of a field of the signer's form: a stable code and a sentence for people.

ingest names the errors of a refused form as pairs of field and code; JSON answers carry the sentence too, and a page that
shows the form again takes it from here. A sentence never repeats what was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.contract.bounds.texts import MOST_CHARACTERS

FORM_FIELDS: Final = (*MOST_CHARACTERS, "consent")
"""The fields of a signer's form."""

FORM_ERRORS: Final[Mapping[str, str]] = {
    "missing": "This is required.",
    "blank": "This is empty, or holds only characters that show nothing.",
    "too_long": "This is too long.",
    "not_text": "This must be text.",
    "not_true_or_false": "This must be true or false.",
    "not_one_line": "This must be one line, without line breaks, tabs and control characters.",
    "control_characters": "This holds control characters, which cannot be shown.",
    "not_an_address": "This is not an e-mail address.",
    "address_incomplete": "The part after the @ must be a full domain name, such as mail.example.",
    "address_too_long": "This is longer than an e-mail address can be.",
    "address_without_mailbox": "The part before the @ names no mailbox of this provider.",
    "address_unreachable": "No mail can reach this domain.",
    "email_domain_blocked": "This petition does not accept e-mail addresses of this domain.",
    "not_a_country_code": "This must be a country code of two letters, such as NL.",
    "country_unknown": "There is no country with this code. (The United Kingdom is GB.)",
    "country_not_eligible": "This petition counts signatures from certain countries only, and this is not one of them.",
    "consent_missing": "This petition can be signed only with consent.",
    "name_invalid": "A name holds at least one letter, and no web address.",
    "invalid": "This must be put right.",
}
"""A sentence for each code. ``invalid`` is for a reader that meets a code it does not know."""


def sentence(field: str, code: str) -> str:
    """Return the sentence for an error of `field`; for a text that is too long it names the maximum length."""
    if code == "too_long" and field in MOST_CHARACTERS:
        return f"This is longer than {MOST_CHARACTERS[field]:,} characters."
    return FORM_ERRORS.get(code, FORM_ERRORS["invalid"])


def form_error(field: str, code: str) -> dict[str, str]:
    """Return the error as JSON answers carry it: ``field``, ``code`` and ``problem``, the sentence."""
    return {"field": field, "code": code, "problem": sentence(field, code)}
