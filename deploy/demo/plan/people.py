"""The demo's signers: invented names, unique addresses, and other spellings of the same address.

Names are composed of syllables. Every address contains the signer's number, so that no two signers share a mailbox. Public
providers are used because only they have spelling rules to fold (no mail is ever sent to a signer).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

import idna

# ruff: noqa: SIM905  lists of syllables read better as lines of text

_GIVEN_FIRST: Final = (
    "Al An Bel Ber Cor Dag Ed El Fen Gis Hal Id Jor Kat Lin Mar Nel Od Pel Ros Sel Tam Ul Vil Wen Yl".split()
)
_GIVEN_LAST: Final = (
    "a an bert da drik e en fa gar i ia ik in ja ka le mo na nor o ra run sa te us va wen ya é ín".split()
)
_FAMILY_FIRST: Final = (
    "Alder Ash Birk Bram Cald Dorn Eich Fern Grön Hasel Heide Ing Kerk Lang Lind Mühl Norr Oster Quill Ravn Sand Stein"
    " Thorn Ulm Voss Wald West Zee Ørn Łąk"
).split()
_FAMILY_LAST: Final = (
    "berg bos by dahl eng feld gaard holt hus iec kamp ley lund mark mere o ova rup sen skog stad ström ton vik wick wood"
).split()

_COUNTRIES: Final[dict[str, int]] = {
    "DE": 230, "NL": 160, "BE": 90, "AT": 80, "FR": 70, "LU": 15, "CH": 45, "DK": 30, "SE": 28, "NO": 20, "FI": 16,
    "PL": 30, "CZ": 18, "IT": 32, "ES": 28, "PT": 14, "IE": 12, "GB": 40, "US": 30, "CA": 14, "AU": 10, "NZ": 6,
    "BR": 8, "AR": 4, "CL": 3, "MX": 4, "JP": 6, "KR": 4, "IN": 8, "ZA": 5, "KE": 3, "GH": 3, "MA": 3, "TR": 6,
    "GR": 7, "HR": 5, "SI": 4, "SK": 5, "HU": 8, "RO": 9, "BG": 5, "EE": 3, "LV": 3, "LT": 4, "IS": 2, "MT": 1,
}  # fmt: skip
"""The signers' countries, with weights."""

Provider = Literal["dots", "tags", "own"]
"""What a mail provider folds: ``dots`` also plus-tags, ``tags`` plus-tags only, ``own`` neither."""

_DOMAINS: Final[dict[str, tuple[Provider, int]]] = {
    "gmail.com": ("dots", 30), "googlemail.com": ("dots", 2),
    "outlook.com": ("tags", 10), "hotmail.com": ("tags", 5), "live.com": ("tags", 2), "icloud.com": ("tags", 4),
    "proton.me": ("tags", 4), "protonmail.com": ("tags", 1), "fastmail.com": ("tags", 2),
    "lakepost.example": ("own", 14), "mail.quillmere.example": ("own", 10), "neighbourly.example": ("own", 8),
    "uni.oldbridge.example": ("own", 5), "brücke.example": ("own", 2), "märzbote.example": ("own", 1),
}  # fmt: skip

_SAME_MAILBOXES: Final[dict[str, str]] = {
    "gmail.com": "googlemail.com",
    "googlemail.com": "gmail.com",
    "proton.me": "pm.me",
    "protonmail.com": "proton.me",
    "icloud.com": "me.com",
}
"""Another domain under which the provider delivers to the same mailbox."""

_TAGS: Final = ("petitions", "news", "lake", "2", "sign.up", "quillmere")
_FULL_WIDTH: Final = {code: code + 0xFEE0 for code in [*range(ord("a"), ord("z") + 1), *range(ord("A"), ord("Z") + 1)]}
_ASCII_NAMES: Final = str.maketrans({"ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})  # NFKD leaves these whole

Spelling = Literal["case", "plus tag", "gmail dots", "full-width letters", "the provider's other domain", "A-label"]


@dataclass(frozen=True, slots=True)
class Person:
    """One signer, as typed the first time."""

    name: str
    email: str
    country: str


def people(random: Random, *, first_number: int, count: int, countries: Sequence[str] | None) -> list[Person]:
    """Return `count` signers, numbered from `first_number`; from `countries` only, if given."""
    domains = random.choices(list(_DOMAINS), [weight for _, weight in _DOMAINS.values()], k=count)
    known = list(countries) if countries else list(_COUNTRIES)
    homes = random.choices(known, [_COUNTRIES[country] for country in known], k=count)
    return [
        _person(random, first_number + index, domain, country)
        for index, (domain, country) in enumerate(zip(domains, homes, strict=True))
    ]


def _person(random: Random, number: int, domain: str, country: str) -> Person:
    pick = random.random

    def one(pool: Sequence[str]) -> str:
        return pool[int(pick() * len(pool))]

    given, family = one(_GIVEN_FIRST) + one(_GIVEN_LAST), one(_FAMILY_FIRST) + one(_FAMILY_LAST)
    local = f"{_ascii(given)}.{_ascii(family)}{number}"
    # Most people write their address in lower case, some as they write their name.
    return Person(f"{given} {family}", f"{local if pick() < 0.1 else local.lower()}@{domain}", country)


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    return unicodedata.normalize("NFKD", name.translate(_ASCII_NAMES)).encode("ascii", "ignore").decode()


def spellings_of(email: str) -> tuple[Spelling, ...]:
    """Return the kinds of other spellings of `email` that its provider accepts."""
    domain = email.rpartition("@")[2]
    provider, _ = _DOMAINS[domain]
    ways: list[Spelling] = ["case", "full-width letters"]
    if provider != "own":
        ways.append("plus tag")
    if provider == "dots":
        ways.append("gmail dots")
    if domain in _SAME_MAILBOXES:
        ways.append("the provider's other domain")
    if not domain.isascii():
        ways.append("A-label")
    return tuple(ways)


def respelled(random: Random, email: str, way: Spelling) -> str:
    """Return another spelling that reaches the same mailbox; never `email` itself."""
    local, _, domain = email.rpartition("@")
    match way:
        case "case":
            return f"{local}@{domain}".upper() if local.islower() else f"{local.lower()}@{domain.capitalize()}"
        case "plus tag":
            return f"{local}+{random.choice(_TAGS)}@{domain}"
        case "gmail dots":
            bare = local.replace(".", "")
            # The existing dot is removed, so this is never the address itself.
            return f"{'.'.join((bare[:1], bare[1:])) if random.random() < 0.5 else bare}@{domain}"
        case "full-width letters":
            wide = local.translate(_FULL_WIDTH)
            return (
                f"{wide}@{domain}"
                if random.random() < 0.5
                else f"{wide[: len(wide) // 2]}{local[len(wide) // 2 :]}@{domain}"
            )
        case "the provider's other domain":
            return f"{local}@{_SAME_MAILBOXES[domain]}"
        case "A-label":
            return f"{local}@{idna.encode(domain, uts46=True).decode('ascii')}"
