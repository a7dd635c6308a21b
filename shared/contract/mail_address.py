"""Recipient addresses: whether a mail can reach one, and its form on the wire."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email

from shared.contract.bounds.texts import clean_address
from shared.contract.identity import InvalidEmail, canonical_email


def wire_address(text: str) -> str:
    """Return `text` in the form that SMTP uses: cleaned, the domain as A-labels unless the local part needs SMTPUTF8.

    Raises:
        InvalidEmail: it is not an address.
    """
    try:
        # The mail server decides which domains exist: a name inside a private network may be valid.
        parts = validate_email(
            clean_address(text),
            check_deliverability=False,
            test_environment=True,
            globally_deliverable=False,
            allow_smtputf8=True,
        )
    except EmailNotValidError:
        raise InvalidEmail("this is not an e-mail address") from None
    return parts.ascii_email or parts.normalized


def mailable(text: str) -> str:
    """Return `text`, cleaned, as an address that a mail can reach from anywhere.

    Raises:
        InvalidEmail: no mail can reach it. The code says why.
    """
    cleaned = clean_address(text)
    canonical_email(cleaned)  # gives the most precise error, and refuses domains of private networks too
    wire_address(cleaned)
    return cleaned
