"""Facts as tally reads them from ``signatures.verified``: the fields of the events, validated by the same rules.

Writers and the contract use the event models (`shared.contract.events`). Building a model costs 3 µs, more than all other
work on a fact; these plain dictionaries with the same keys are validated in a third of that
(tests/unit/services/tally/counting/test_facts.py).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from shared.contract.events import CountryCode, PetitionId
from shared.contract.states import RevocationText

_RULES: Final = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _CountedFact(TypedDict):
    """See `shared.contract.events.CountedFact`."""

    signature_id: UUID
    petition_id: PetitionId
    lane: Annotated[int, Field(ge=0)]
    position: Annotated[int, Field(ge=1)]
    country: CountryCode
    signed_at: AwareDatetime
    occurred_at: AwareDatetime


@with_config(_RULES)
class VerifiedFact(_CountedFact):
    """See `shared.contract.events.SignatureVerified`."""

    delta: Annotated[Literal[1], Field(default=1)]


@with_config(_RULES)
class RevokedFact(_CountedFact):
    """See `shared.contract.events.SignatureRevoked`."""

    delta: Annotated[Literal[-1], Field(default=-1)]
    cause: RevocationText


ReadFact = VerifiedFact | RevokedFact
