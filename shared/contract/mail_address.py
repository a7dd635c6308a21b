"""E-mail addresses that mails are sent to: whether one can be, and how it goes over the wire."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email

from shared.contract.bounds.texts import clean_address
from shared.contract.identity import InvalidEmail, canonical_email


def wire_address(text: str) -> str:
    """`text` as it goes over the wire: cleaned, the domain as A-labels, unless the part before the @ needs SMTPUTF8 anyway.

    Raises:
        InvalidEmail: it is no address.
    """
    try:
        # Which domains exist is the server's to say; a name inside an organisation's own network may be right.
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
    """`text`, cleaned, as the address of somebody whom a mail can reach from anywhere.

    Raises:
        InvalidEmail: no mail can reach it. The code says why.
    """
    cleaned = clean_address(text)
    canonical_email(cleaned)  # it says best what is wrong, and refuses domains of one's own network, too
    wire_address(cleaned)
    return cleaned
