"""The rules of a petition that depend on the form and the petition alone, so that they can be told to the signer at once.

ingest refuses a form by them, verify decides by them again: the petition may have changed in between, and not every command
comes through a form. Each rule gives None, or the code of `shared.contract.form_errors.FORM_ERRORS` for why it refuses; verify's
reason codes of the same names are these. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from shared.contract.bounds.invisible import has_letter
from shared.contract.countries import COUNTRIES
from shared.contract.events import Policy

CODES: Final = frozenset(
    {"email_domain_blocked", "country_unknown", "country_not_eligible", "consent_missing", "name_invalid"}
)
"""All codes of these rules."""

_PLAIN_NAME: Final = re.compile("[A-VX-Za-vx-z][^:]*")
"""Most names: they begin with a letter, which is no W, and hold no colon."""


def email_refusal(policy: Policy, domain: str) -> str | None:
    """Whether `policy` takes addresses of `domain`, which is a canonical address's."""
    return "email_domain_blocked" if policy.blocks(domain) else None


def country_refusal(policy: Policy, country: str) -> str | None:
    """Whether there is a country of this code, in upper case, and `policy` counts signers from it."""
    if country in policy.eligible:
        return None
    return "country_not_eligible" if country in COUNTRIES else "country_unknown"


def consent_refusal(policy: Policy, *, consent: bool) -> str | None:
    """Whether the signer has agreed, if `policy` asks for that."""
    return "consent_missing" if policy.require_consent and not consent else None


def name_refusal(name: str) -> str | None:
    """Whether `name` can be somebody's: any script's letters make a name; web addresses are the usual content of signatures
    that are advertisements."""
    if _PLAIN_NAME.fullmatch(name):
        return None
    lowered = name.lower()
    if not has_letter(name) or "://" in lowered or lowered.startswith("www."):
        return "name_invalid"
    return None


def refusal(policy: Policy, *, email_domain: str, country: str, consent: bool, name: str) -> str | None:
    """The first rule's refusal of a signature, None if it may stand."""
    return (
        email_refusal(policy, email_domain)
        or country_refusal(policy, country)
        or consent_refusal(policy, consent=consent)
        or name_refusal(name)
    )
