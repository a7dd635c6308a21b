"""The states of a signature, as events, tables, status calls and metrics name them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class SignatureState(StrEnum):
    """The state of a signature. The member's text is the value that is stored and sent."""

    SUBMITTED = "submitted"
    """ingest has accepted it; verify has not decided it yet. It is in no table."""
    PENDING = "pending"
    """It will count once its e-mail address is confirmed."""
    VERIFIED = "verified"
    """It counts."""
    DUPLICATE = "duplicate"
    """Its signer has already signed."""
    REJECTED = "rejected"
    """The petition's rules do not allow it."""
    WITHDRAWN = "withdrawn"
    """Its signer took it back."""
    INVALIDATED = "invalidated"
    """A moderator struck it out."""


# The same as plain strings, for fields of events: pydantic takes a microsecond longer to serialise an enum member, a tenth
# of the cost of a rejection.
RefusalText = Literal["duplicate", "rejected"]
RevocationText = Literal["withdrawn", "invalidated"]

Refusal = Literal[SignatureState.DUPLICATE, SignatureState.REJECTED]
"""The states of a submission that never counted."""

CountChange = Literal[SignatureState.VERIFIED, SignatureState.WITHDRAWN, SignatureState.INVALIDATED]
"""The states that change a count; each ledger row is about one of them."""
