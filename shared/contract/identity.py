"""Identities: the canonical e-mail address, the signer key, signature ids, and the ids of derived events.

Two spellings of one mailbox must give one signer key, and two mailboxes must never share one. So spellings are folded
only as the mailbox's provider is known to fold them; for all other providers only case, width and the domain's encoding
are folded (docs/adr/0003-canonical-email.md).
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

# Domains under which no mailbox can be reached (RFC 6761). "test" is reserved too, but tests and demos use it.
_RESERVED: Final = "|".join(re.escape(name) for name in SPECIAL_USE_DOMAIN_NAMES if name != "test")

# The common case, decided without a parser: an ASCII dot-atom local part (RFC 5321 section 4.1.2, at most 64 characters)
# and a host name of letters, digits and hyphens with at least one dot (RFC 1035 section 2.3.1) that is not reserved, 254
# characters in all. A label with hyphens in its third and fourth place may be an A-label and is left to the parser. The
# parser accepts everything that this expression accepts.
_PLAIN_EMAIL: Final = re.compile(
    r"(?=.{1,64}@)(?=.{6,254}\Z)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    rf"@(?=.{{4,253}}\Z)(?!(?:.*\.)?(?:{_RESERVED})\Z)"
    r"(?:(?!..--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!..--)[a-z](?:[a-z0-9-]{0,61}[a-z])\Z"
)


_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class InvalidEmail(ValueError):
    """The text is not an e-mail address. The message says why and never repeats the text.

    Attributes:
        code: One of `shared.contract.form_errors.FORM_ERRORS`.
    """

    def __init__(self, message: str, code: str = "not_an_address") -> None:
        super().__init__(message)
        self.code = code


def canonical_email(text: str, rules: int = LATEST) -> str:
    """Return the canonical address of the mailbox that `text` names. Idempotent.

    NFKC (full-width letters become plain ones), lower case, the domain as A-labels, and the provider's own rules for
    providers that are known to have them.

    Args:
        text: An e-mail address in any spelling.
        rules: The version of the providers' rules; for a signature, the petition's.

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
        # A hyphen may stand for an underscore, which a domain cannot have: that is another mailbox.
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
    """Return the one spelling of a mail domain that canonical addresses have, for comparison: ``Bücher.example`` and its
    A-label become one, and so do a provider's interchangeable domains. A text that is not a domain is only folded."""
    folded = unicodedata.normalize("NFKC", text).strip().strip(".").lower()
    try:
        folded = idna.encode(folded, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return folded
    provider = VERSIONS[LATEST].get(folded)
    return folded if provider is None else provider.domain


def domain_of_rule(text: str) -> str:
    """Return the domain that a rule about domains means: ``@mail.example``, ``*.mail.example``, ``*@mail.example`` and
    ``Mail.example.`` become ``mail.example``. The result may not be a domain; see `is_domain`."""
    folded = clean_address(text)
    for before in ("*@", "@", "*.", "."):
        folded = folded.removeprefix(before)
    folded = folded.removesuffix(".").lower()
    if len(folded) > 253:  # not a domain, and encoding it would be slow
        return folded
    try:
        return idna.encode(folded, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return folded


def is_domain(text: str) -> bool:
    """Return whether `text`, a result of `domain_of_rule`, can be the domain of a canonical address."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _canonical_spelling(text: str) -> str:
    """Parse what `_PLAIN_EMAIL` does not cover: international addresses, A-labels, quoted local parts (refused), and
    malformed text.

    `text` still has its case: IDNA folds a domain's case by other rules.
    """
    try:
        parts = validate_email(text, check_deliverability=False, test_environment=True)
        # UTS 46 folds what registries treat as one name (sharp s and final sigma stay distinct, as in IDNA 2008).
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
    """Return the error code for `text`, which is not an address."""
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
    """Return the reason without the input: these messages reach logs and answers."""
    text = str(error)
    return "this is not an e-mail address" if any(mark in text for mark in ("'", '"', "@", ":")) else text


def signer_key(pepper: bytes, petition_id: str, canonical: str) -> UUID:
    """Return the signer key: HMAC-SHA256 over petition and canonical e-mail address, truncated to 128 bits.

    Without the pepper nobody can test whether an address has signed, and a signer's keys for two petitions are unrelated.
    With 10 million signers the probability of any collision in 128 bits is about 10**-25.
    """
    digest = hmac.digest(pepper, b"signer\0" + petition_id.encode() + b"\0" + canonical.encode(), hashlib.sha256)
    return UUID(bytes=digest[:16])


# A signature id is 96 bits of identity and a 32-bit keyed check, so that ingest, which keeps no state, can tell an id that
# it issued and verify has not stored yet from one that was never issued.
_CHECK_BYTES: Final = 4


def new_signature_id(pepper: bytes) -> UUID:
    """Return a new id. Ids rise with time, so that new rows are adjacent in the database's index."""
    milliseconds = time.time_ns() // 1_000_000
    return _checked(pepper, milliseconds.to_bytes(6, "big") + os.urandom(6))


def retry_signature_id(pepper: bytes, signer: UUID, idempotency_key: str) -> UUID:
    """Return the id that every retry with this Idempotency-Key gets.

    It depends on the signer too: two people whose clients send the same key ("1", say) are two signatures.
    """
    digest = hmac.digest(pepper, b"retry\0" + signer.bytes + b"\0" + idempotency_key.encode(), hashlib.sha256)
    return _checked(pepper, digest[:12])


def issued_here(pepper: bytes, signature_id: UUID) -> bool:
    """Return whether this system issued `signature_id`."""
    return hmac.compare_digest(_checked(pepper, signature_id.bytes[:12]).bytes, signature_id.bytes)


def command_id(signature_id: UUID, command_type: str) -> UUID:
    """Return the event id of a command about an existing signature: a repeated command is a replay of the first."""
    digest = hashlib.sha256(b"command\0" + signature_id.bytes + command_type.encode()).digest()
    return UUID(bytes=digest[:16])


_MILESTONES: Final = UUID("5f0a6b1c-6f0e-5f7e-9a52-6b6d7f2f8c11")


def milestone_id(petition_id: str, threshold: int) -> UUID:
    """Return the event id of a milestone. It is derived, so that every copy of the event has the same id (UUIDv5)."""
    return uuid5(_MILESTONES, f"milestone/{petition_id}/{threshold}")


def _checked(pepper: bytes, identity: bytes) -> UUID:
    check = hmac.digest(pepper, b"signature-id\0" + identity, hashlib.sha256)[:_CHECK_BYTES]
    return UUID(bytes=identity + check)
