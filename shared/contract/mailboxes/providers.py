"""Which spellings of an address a mail provider delivers to one mailbox, according to its documentation.

The rules are data, one file per version: ``providers_1.toml``, ``providers_2.toml``. Every signer key depends on them, so
a petition keeps the version that it was created with, and a released version never changes: a change is a new file with
the next number (docs/adr/0003-canonical-email.md).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FILE: Final = re.compile(r"providers_(\d+)\.toml")


@dataclass(frozen=True, slots=True)
class MailboxRules:
    """The rules of one domain."""

    domain: str
    """The domain in canonical addresses: the provider's first one if a name is the same mailbox under all its domains."""
    tags: bool = False
    """``name+anything`` reaches ``name``."""
    subdomains: bool = False
    """``anything@name.domain`` reaches ``name@domain``."""
    replaced: tuple[tuple[str, str], ...] = ()
    """Characters that are equivalent in a name, with their replacement: "" if they are ignored. Pairs, because
    `str.replace` takes a tenth of the time of `str.translate`."""


def rules_of(text: str) -> dict[str, MailboxRules]:
    """Return the rules in a file's text, by domain.

    A rule's value in the file is the list of its sources, so that no rule lacks one.

    Raises:
        ValueError: the text is not TOML, a rule has no source, or two providers have the same domain.
    """
    found: dict[str, MailboxRules] = {}
    for provider in tomllib.loads(text)["providers"]:
        domains: list[str] = provider["domains"]
        rules = {name: _has_source(provider, name) for name in ("listed", "interchangeable", "tags", "subdomains")}
        replaced: list[tuple[str, str]] = []
        if _has_source(provider, "ignored"):
            replaced += [(character, "") for character in provider["ignored"]["characters"]]
        if _has_source(provider, "alike"):
            first, *others = provider["alike"]["characters"]
            replaced += [(other, first) for other in others]
        for domain in domains:
            if domain in found:
                raise ValueError(f"{domain} has two providers")
            found[domain] = MailboxRules(
                domains[0] if rules["interchangeable"] else domain,
                tags=rules["tags"],
                subdomains=rules["subdomains"],
                replaced=tuple(replaced),
            )
    return found


def _has_source(provider: Mapping[str, Any], rule: str) -> bool:
    """Return whether the provider has the rule.

    Raises:
        ValueError: the rule has no source.
    """
    if rule not in provider:
        return False
    value = provider[rule]
    sources = value["sources"] if isinstance(value, dict) else value
    if not sources or not all(source.startswith("https://") for source in sources):
        raise ValueError(f"{provider['name']}: {rule} has no source")
    return True


def _load() -> dict[int, dict[str, MailboxRules]]:
    return {
        int(match[1]): rules_of(path.read_text(encoding="utf-8"))
        for path in sorted(Path(__file__).parent.iterdir())
        if (match := _FILE.fullmatch(path.name))
    }


VERSIONS: Final[Mapping[int, Mapping[str, MailboxRules]]] = _load()
"""Every version of the rules, by domain."""

LATEST: Final = max(VERSIONS)
"""The version for new petitions."""

NEWEST_FIRST: Final = tuple(sorted(VERSIONS, reverse=True))
