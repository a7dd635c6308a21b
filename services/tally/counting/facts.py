"""Facts as tally reads them off ``signatures.verified``: the fields of the events, checked by the same rules.

The events are models (`shared.contract.events`), for those who write them and for the contract. Making a model costs 3 µs,
more than all the rest of counting a fact; these are plain dictionaries with the same keys, checked in a third of that
(tests/unit/services/tally/counting/test_facts.py).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from shared.contract.events import Cause, CountryCode, PetitionId

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
    cause: Cause


ReadFact = VerifiedFact | RevokedFact
