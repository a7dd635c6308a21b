"""Who signed: the canonical e-mail, the signer key, and signature ids. And the ids of events that are derived.

Two spellings of one mailbox must give one signer key, and two mailboxes must never share one. So spellings are folded
only where the mailbox's provider is known to fold them itself; for everybody else only case, width and the domain's
encoding are folded (docs/adr/0003-canonical-email.md).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
import unicodedata
from typing import Final
from uuid import UUID, uuid5

import idna
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from shared.contract.bounds.texts import clean_address
from shared.contract.mailboxes.providers import LATEST, VERSIONS

# Names under which no mailbox can be reached (RFC 6761). "test" is reserved too, and is what tests and demos use.
_RESERVED: Final = "|".join(re.escape(name) for name in SPECIAL_USE_DOMAIN_NAMES if name != "test")

# The common case, decided without a parser: an ASCII dot-atom local part (RFC 5321 section 4.1.2, at most 64 characters)
# and a host name of letters, digits and hyphens with at least one dot (RFC 1035 section 2.3.1) that is not reserved, 254
# characters in all. A label with hyphens in its third and fourth place may be an A-label and goes the long way, to be
# checked as such. What this accepts, the long way would accept too.
_PLAIN_EMAIL: Final = re.compile(
    r"(?=.{1,64}@)(?=.{6,254}\Z)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    rf"@(?=.{{4,253}}\Z)(?!(?:.*\.)?(?:{_RESERVED})\Z)"
    r"(?:(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!..--)[a-z](?:[a-z0-9-]{0,61}[a-z])\Z"
)


_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class InvalidEmail(ValueError):
    """The text is not an e-mail address. The message says why and never repeats the text.

    Attributes:
        code: one of `shared.contract.form_errors.FORM_ERRORS`.
    """

    def __init__(self, message: str, code: str = "not_an_address") -> None:
        super().__init__(message)
        self.code = code


def canonical_email(text: str, rules: int = LATEST) -> str:
    """The one spelling of the mailbox that `text` names; a fixed point: the canonical form of a canonical form is itself.

    NFKC (full-width letters become plain ones), lower case, the domain as A-labels, and the provider's own rules for
    providers that are known to have them.

    Args:
        rules: The version of the providers' rules: the petition's, where it is about a signature.

    Raises:
        InvalidEmail: `text` is not an address that mail could be sent to.
        KeyError: there is no such version.
    """
    compatible = clean_address(text)
    folded = compatible.lower()
    if not _PLAIN_EMAIL.match(folded):
        folded = _canonical_spelling(compatible)
    local, _, domain = folded.rpartition("@")
    providers = VERSIONS[rules]
    provider = providers.get(domain)
    if provider is None:
        name, _, parent = domain.partition(".")
        provider = providers.get(parent)
        # A hyphen may stand for an underscore, which no domain may have: another mailbox.
        if provider is None or not provider.subdomains or "-" in name:
            return folded
        local = name
    elif provider.tags:
        local = local.partition("+")[0]
    for character, written in provider.replaced:
        local = local.replace(character, written)
    if not local or local.endswith(
        "."
    ):  # "+tag", or "name.+tag" at a provider whose mailboxes cannot be called "name."
        raise InvalidEmail(
            "no mailbox is left of the part before the @ once the provider's rules are applied",
            "address_without_mailbox",
        )
    return f"{local}@{provider.domain}"


def canonical_domain(text: str) -> str:
    """The one spelling of a mail domain, as it stands in canonical e-mail addresses: ``Bücher.example`` and its A-label
    are one, and so are a provider's interchangeable domains. Fit for comparing; what is no domain is kept as it is."""
    folded = unicodedata.normalize("NFKC", text).strip().strip(".").lower()
    try:
        folded = idna.encode(folded, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return folded
    provider = VERSIONS[LATEST].get(folded)
    return folded if provider is None else provider.domain


def domain_of_rule(text: str) -> str:
    """The domain that a rule about domains means: ``@mail.example``, ``*.mail.example``, ``*@mail.example`` and
    ``Mail.example.`` are ``mail.example``. What is no domain is kept as it is, see `is_domain`."""
    folded = clean_address(text)
    for before in ("*@", "@", "*.", "."):
        folded = folded.removeprefix(before)
    folded = folded.removesuffix(".").lower()
    if len(folded) > 253:  # no domain, and the next line would take its time
        return folded
    try:
        return idna.encode(folded, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return folded


def is_domain(text: str) -> bool:
    """Whether a canonical address may end with `text`, as `domain_of_rule` gives it."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _canonical_spelling(text: str) -> str:
    """The long way: international addresses, A-labels, quoted local parts (refused), and everything malformed.

    It gets the text before it was put in lower case: a domain's case is folded by the rules of IDNA, which differ.
    """
    try:
        parts = validate_email(text, check_deliverability=False, test_environment=True)
        # uts46 folds what registries treat as one name (sharp s, final sigma kept apart as IDNA 2008 has them).
        domain = idna.encode(parts.ascii_domain, uts46=True).decode("ascii").lower()
    except (EmailNotValidError, idna.IDNAError, UnicodeError) as error:
        raise InvalidEmail(_without_input(error), _code(text)) from None
    if "." not in domain:
        raise InvalidEmail("the part after the @ must be a full domain name", "address_incomplete")
    local = unicodedata.normalize("NFKC", parts.local_part).lower()
    if len(local.encode()) > 64:  # RFC 5321 section 4.5.3.1.1
        raise InvalidEmail("the part before the @ is too long", "address_too_long")
    return f"{local}@{domain}"


def _code(text: str) -> str:
    """What is wrong with `text`, which is no address, as far as a person can be told it in a word."""
    local, at, domain = text.rpartition("@")
    domain = domain.lower()
    if not at or not local or not domain or "@" in local or any(character.isspace() for character in text):
        return "not_an_address"
    if re.fullmatch(rf"(?:.*\.)?(?:{_RESERVED})", domain):
        return "address_unreachable"
    if "." not in domain:
        return "address_incomplete"
    if len(text) > 254 or len(local) > 64:  # RFC 5321 section 4.5.3.1
        return "address_too_long"
    return "not_an_address"


def _without_input(error: Exception) -> str:
    """The reason, without what was typed: these messages reach logs and answers."""
    text = str(error)
    return "this is not an e-mail address" if any(mark in text for mark in ("'", '"', "@", ":")) else text


def signer_key(pepper: bytes, petition_id: str, canonical: str) -> UUID:
    """The signer's stand-in for one petition: HMAC-SHA256 over petition and canonical e-mail, cut to 128 bits.

    Without the pepper nobody can test whether an address signed, and one signer's keys of two petitions share nothing.
    128 bits: with 10 million signers the odds of any collision are about 10**-25.
    """
    digest = hmac.digest(pepper, b"signer\0" + petition_id.encode() + b"\0" + canonical.encode(), hashlib.sha256)
    return UUID(bytes=digest[:16])


# A signature id is 96 bits of identity and a 32-bit keyed check, so that ingest, which keeps no state, can tell an id it
# issued and that is still on the road from one that never was.
_CHECK_BYTES: Final = 4


def new_signature_id(pepper: bytes) -> UUID:
    """A fresh id that rises with time: new rows then land together in the database's index instead of all over it."""
    milliseconds = time.time_ns() // 1_000_000
    return _checked(pepper, milliseconds.to_bytes(6, "big") + os.urandom(6))


def retry_signature_id(pepper: bytes, signer: UUID, idempotency_key: str) -> UUID:
    """The id that every retry with this Idempotency-Key gets.

    The signer is part of it: two people whose clients send the same key ("1", say) are still two signatures.
    """
    digest = hmac.digest(pepper, b"retry\0" + signer.bytes + b"\0" + idempotency_key.encode(), hashlib.sha256)
    return _checked(pepper, digest[:12])


def issued_here(pepper: bytes, signature_id: UUID) -> bool:
    """Whether this system issued `signature_id`."""
    return hmac.compare_digest(_checked(pepper, signature_id.bytes[:12]).bytes, signature_id.bytes)


def command_id(signature_id: UUID, command_type: str) -> UUID:
    """The event id of a command about an existing signature: a repeated command is a replay of the first."""
    digest = hashlib.sha256(b"command\0" + signature_id.bytes + command_type.encode()).digest()
    return UUID(bytes=digest[:16])


_MILESTONES: Final = UUID("5f0a6b1c-6f0e-5f7e-9a52-6b6d7f2f8c11")


def milestone_id(petition_id: str, threshold: int) -> UUID:
    """The event id of a milestone: derived, so that every copy of the announcement is the same event."""
    return uuid5(_MILESTONES, f"milestone/{petition_id}/{threshold}")


def _checked(pepper: bytes, identity: bytes) -> UUID:
    check = hmac.digest(pepper, b"signature-id\0" + identity, hashlib.sha256)[:_CHECK_BYTES]
    return UUID(bytes=identity + check)
