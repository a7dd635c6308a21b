"""A submission of the demo, and its expected outcome."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

from deploy.demo.plan.people import Person

Outcome = Literal["verified", "duplicate", "rejected", "refused"]
"""The outcome of a submission: ingest refuses it, or accepts it and verify decides. Of several submissions of one signer the
first to arrive is verified, so ``verified`` and ``duplicate`` apply to them as a group, not to each."""

_COMMENTS: Final = (
    "It would make my way home so much shorter.",
    "Count me in!",
    "Für alle, die nach uns kommen.",
    "We have waited long enough — thank you for asking.",
    "My grandmother signed the first one, in 1987.",
    "Graag!",
)
_POSTCODES: Final = ("1011 AB", "20095", "4020", "L-2450", "9000", "75011", "SW4 7AA")


@dataclass(frozen=True, slots=True)
class Submission:
    """One body for one petition.

    Attributes:
        petition_id: the petition in the URL; it may be closed or unknown.
        body: the JSON object.
        outcome: the expected outcome.
        reason: the expected reason, unless it is verified.
    """

    petition_id: str
    body: bytes
    outcome: Outcome
    reason: str = ""


def fields(random: Random, person: Person) -> dict[str, Any]:
    """Return the form fields of `person`: consent always, a postcode often, a comment sometimes."""
    found: dict[str, Any] = {"email": person.email, "name": person.name, "country": person.country, "consent": True}
    if random.random() < 0.4:
        found["postcode"] = random.choice(_POSTCODES)
    if random.random() < 0.05:
        found["comment"] = random.choice(_COMMENTS)
    return found


def encoded(random: Random, person: Person) -> bytes:
    """The same as JSON."""
    return json.dumps(fields(random, person), ensure_ascii=False, separators=(",", ":")).encode()
