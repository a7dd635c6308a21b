"""The states of a signature: the words of events, tables, status calls and metrics for where it stands."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class SignatureState(StrEnum):
    """Where a signature stands. A stored or sent value is the member's own text."""

    SUBMITTED = "submitted"
    """ingest has accepted it; verify has not decided it. It is in no table."""
    PENDING = "pending"
    """It counts once its e-mail address was confirmed."""
    VERIFIED = "verified"
    """It counts."""
    DUPLICATE = "duplicate"
    """Its signer has signed before."""
    REJECTED = "rejected"
    """The petition's rules do not allow it."""
    WITHDRAWN = "withdrawn"
    """Its signer took it back."""
    INVALIDATED = "invalidated"
    """A moderator struck it out."""


# The same as plain texts, for fields of events: writing a member of an enumeration as JSON takes pydantic a microsecond
# longer, a tenth of what a rejection costs.
RefusalText = Literal["duplicate", "rejected"]
RevocationText = Literal["withdrawn", "invalidated"]

Refusal = Literal[SignatureState.DUPLICATE, SignatureState.REJECTED]
"""The states of a submission that never counted."""

CountChange = Literal[SignatureState.VERIFIED, SignatureState.WITHDRAWN, SignatureState.INVALIDATED]
"""The states that change a count: what a row of the ledger is about."""
