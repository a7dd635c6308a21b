"""The rules of a petition that depend only on the form and the petition, so that a refusal reaches the signer at once.

ingest applies them to a form, and verify applies them again: the petition may have changed in between, and not every
command comes through a form. Each rule returns None, or the code of its refusal, one of
`shared.contract.form_errors.FORM_ERRORS`; verify uses the same codes as reason codes. Pure functions.
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
"""Most names: they begin with a letter other than W and hold no colon."""


def email_refusal(policy: Policy, domain: str) -> str | None:
    """Check that `policy` does not block `domain`, the domain of a canonical address."""
    return "email_domain_blocked" if policy.blocks(domain) else None


def country_refusal(policy: Policy, country: str) -> str | None:
    """Check that `country`, an upper-case code, exists and that `policy` counts signers from it."""
    if country in policy.eligible:
        return None
    return "country_not_eligible" if country in COUNTRIES else "country_unknown"


def consent_refusal(policy: Policy, *, consent: bool) -> str | None:
    """Check that the signer has given consent if `policy` requires it."""
    return "consent_missing" if policy.require_consent and not consent else None


def name_refusal(name: str) -> str | None:
    """Check that `name` can be a person's name: it has a letter of any script and is not a web address, the usual content
    of advertisements."""
    if _PLAIN_NAME.fullmatch(name):
        return None
    lowered = name.lower()
    if not has_letter(name) or "://" in lowered or lowered.startswith("www."):
        return "name_invalid"
    return None


def refusal(policy: Policy, *, email_domain: str, country: str, consent: bool, name: str) -> str | None:
    """Return the code of the first rule that refuses a signature, or None if none does."""
    return (
        email_refusal(policy, email_domain)
        or country_refusal(policy, country)
        or consent_refusal(policy, consent=consent)
        or name_refusal(name)
    )
