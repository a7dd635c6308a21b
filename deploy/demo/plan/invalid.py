"""Submissions that ingest must refuse. Each breaks one rule, of the form or of the petition."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from deploy.demo.plan.people import Person
from deploy.demo.plan.petitions import DemoPetition
from deploy.demo.plan.submission import fields
from shared.contract.events import Policy

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """One way to be invalid."""

    reason: str
    """``invalid_<field>``, or the code of the petition's rule (`shared.contract.eligibility.CODES`)."""
    spoil: Callable[[Random, Fields], Fields]
    """Takes the fields of a valid submission and returns those to change."""
    needs: Callable[[Policy], object] = lambda _: True
    """Whether a petition with this policy has the broken rule."""


_MALFORMED: Final = (
    "somebody",
    "somebody@",
    "@lakepost.example",
    "somebody@@lakepost.example",
    "somebody@lakepost",
    "some body@lakepost.example",
    "somebody@lake..post.example",
    ".somebody.@lakepost.example",
    "somebody@-lakepost.example",
    "some,body@lakepost.example",
)

INVALID: Final[tuple[Invalid, ...]] = (
    Invalid(reason="invalid_email", spoil=lambda random, _: {"email": random.choice(_MALFORMED)}),
    Invalid(reason="invalid_email", spoil=lambda _random, _: {"email": None}),
    Invalid(reason="invalid_name", spoil=lambda random, _: {"name": random.choice((None, ""))}),
    Invalid(reason="invalid_name", spoil=lambda _random, old: {"name": old["name"] * 40}),
    Invalid(
        reason="invalid_country",
        spoil=lambda random, _: {"country": random.choice(("Netherlands", "D", "49", "", None))},
    ),
    Invalid(reason="invalid_comment", spoil=lambda _random, _: {"comment": "Please! " * 260}),
    Invalid(
        reason="country_unknown",
        spoil=lambda random, _: {"country": random.choice(("XX", "ZZ", "QM", "UK"))},
    ),
    Invalid(
        reason="country_not_eligible",
        spoil=lambda random, _: {"country": random.choice(("FR", "CH", "PL", "US", "JP"))},
        needs=lambda policy: policy.countries,
    ),
    Invalid(
        reason="email_domain_blocked",
        spoil=lambda random, old: {
            "email": f"{old['email'].rpartition('@')[0]}@{random.choice(('', 'mx.', 'MX.'))}throwaway.example"
        },
        needs=lambda policy: policy.blocked_email_domains,
    ),
    Invalid(
        reason="consent_missing",
        spoil=lambda random, _: {"consent": random.choice((False, None))},
        needs=lambda policy: policy.require_consent,
    ),
    Invalid(
        reason="name_invalid",
        spoil=lambda random, _: {
            "name": random.choice(("12345", "...", "https://lakepost.example/win", "www.win.example"))
        },
    ),
)
"""The invalid part of the surge uses these in turn."""


def applies_to(kind: Invalid, petition: DemoPetition) -> bool:
    """Whether `petition` has the rule that `kind` breaks."""
    return bool(kind.needs(petition.state.policy))


def spoiled(random: Random, kind: Invalid, person: Person) -> bytes:
    """The JSON body of a submission by `person` that breaks the rule of `kind`, and no other. A None leaves a field out."""
    found = fields(random, person)
    changed = {**found, **kind.spoil(random, found)}
    present = {name: value for name, value in changed.items() if value is not None}
    return json.dumps(present, ensure_ascii=False, separators=(",", ":")).encode()
