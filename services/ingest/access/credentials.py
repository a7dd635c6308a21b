"""The named secrets in ``ADMIN_TOKENS`` and ``API_KEYS``: ``name:secret``, or ``name@org1+org2:secret``, comma separated.

The audit log records the name. While a secret is rotated, two entries overlap: ``kim-2026:…,kim-2027:…``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import AfterValidator, SecretStr

from shared.contract.bounds.texts import is_slug

LEAST_SECRET: Final = 16
"""Least characters of a secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One entry."""

    name: str
    organisations: frozenset[str] | None
    """Slugs of the organisations whose petitions it is for; None: all."""
    secret: str = field(repr=False)

    def __str__(self) -> str:
        bound = "" if self.organisations is None else "@" + "+".join(sorted(self.organisations))
        return f"{self.name}{bound}"


class NamedSecrets(SecretStr):
    """The text of such a setting. Printed, it shows names and no secrets."""

    def _display(self) -> str:
        try:
            return ", ".join(map(str, parse(self.get_secret_value(), unnamed="key")))
        except ValueError:
            return "**********"


def parse(text: str, *, unnamed: str | None = None) -> list[Credential]:
    """The entries of a setting.

    Args:
        unnamed: If given, entries without a name are accepted, and named by this word and their place: ``key-1``.

    Raises:
        ValueError: an entry is invalid. The message says which one and how to write it, and repeats nothing of it.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return [_entry(number, entry, unnamed) for number, entry in enumerate(entries, 1)]


def _entry(number: int, entry: str, unnamed: str | None) -> Credential:
    label, colon, secret = entry.partition(":")
    if not colon and unnamed is not None:
        label, secret = f"{unnamed}-{number}", entry
    elif not colon:
        raise ValueError(f"entry {number} has no name: write name:secret, such as kim:… or kim@open-rails:…")
    name, bound, organisations = label.partition("@")
    slugs = organisations.split("+") if bound else []
    if not is_slug(name):
        raise ValueError(f"entry {number}: the name before the first colon must be 1 to 64 of a-z, 0-9 and -")
    if not all(is_slug(slug) for slug in slugs):
        raise ValueError(
            f"entry {number}: after @ come slugs of organisations, joined by +, such as name@org1+org2:secret"
        )
    if len(secret) < LEAST_SECRET:
        raise ValueError(
            f"entry {number}: every secret must have at least {LEAST_SECRET} characters; make one with: openssl rand -hex 32"
        )
    return Credential(name, frozenset(slugs) if bound else None, secret)


def require_unique(credentials: Iterable[Credential]) -> None:
    """Require unique names, because the audit log records them, and unique secrets.

    Raises:
        ValueError: a name or secret is used twice. The message gives the names.
    """
    names: set[str] = set()
    secrets: dict[str, str] = {}
    for credential in credentials:
        if credential.name in names:
            raise ValueError(f"the name {credential.name} is given twice: every token and key needs a name of its own")
        if credential.secret in secrets:
            raise ValueError(
                f"{secrets[credential.secret]} and {credential.name} have the same secret: make another one"
            )
        names.add(credential.name)
        secrets[credential.secret] = credential.name


def _readable(unnamed: str | None) -> AfterValidator:
    def readable(value: NamedSecrets) -> NamedSecrets:
        parse(value.get_secret_value(), unnamed=unnamed)
        return value

    return AfterValidator(readable)


AdminTokens = Annotated[NamedSecrets, _readable(None)]
ApiKeys = Annotated[NamedSecrets, _readable("key")]
