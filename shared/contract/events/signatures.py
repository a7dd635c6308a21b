"""Commands and facts about signatures. The commands alone carry personal data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from shared.contract.bounds.texts import MOST_ACTOR, MOST_CHARACTERS, MOST_REASON, NOT_IN_A_LINE
from shared.contract.events.base import CountryCode, EmailText, Event, PetitionId
from shared.contract.states import RefusalText, RevocationText

# ---------------------------------------------------------------- signatures.submitted: commands, with personal data


class SignCommand(Event):
    """A signer asks to support a petition. The event's id is the signature's id, so a client's retry is a replay.

    Its ``repr`` omits who signs, because exceptions show it and are logged.
    """

    TYPE: ClassVar[str] = "groundswell.signature.sign.v1"

    signature_id: UUID
    """The signature's id, and the event's."""
    petition_id: PetitionId
    """The petition that is signed."""
    email: EmailText = Field(repr=False)
    """The signer's e-mail address as typed."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS["name"])] = Field(repr=False)
    """The signer's name as typed."""
    country: CountryCode
    """The signer's country, ISO 3166-1 alpha-2."""
    postcode: Annotated[str, StringConstraints(max_length=MOST_CHARACTERS["postcode"])] | None = Field(None, repr=False)
    """The signer's postcode as typed."""
    comment: Annotated[str, StringConstraints(max_length=MOST_CHARACTERS["comment"])] | None = Field(None, repr=False)
    """What the signer has to say about the petition."""
    consent: bool = False
    """Whether the signer has agreed to what the organisation asks consent for."""
    submitted_at: AwareDatetime
    """When ingest accepted the signature."""


class ChangeCommand(Event):
    """Base class of the commands about an existing signature."""

    signature_id: UUID
    """The signature that is changed."""
    petition_id: PetitionId
    """The petition that it is for."""
    requested_at: AwareDatetime
    """When ingest accepted the change."""


class ConfirmCommand(ChangeCommand):
    """The signer's e-mail address is confirmed: a pending signature becomes verified."""

    TYPE: ClassVar[str] = "groundswell.signature.confirm.v1"


class WithdrawCommand(ChangeCommand):
    """The signer takes the signature back."""

    TYPE: ClassVar[str] = "groundswell.signature.withdraw.v1"


class InvalidateCommand(ChangeCommand):
    """A moderator strikes the signature out."""

    TYPE: ClassVar[str] = "groundswell.signature.invalidate.v1"


class EraseCommand(ChangeCommand):
    """An operator erases what links the signature to its signer. Its state stays, and so does the count.

    Operators write `actor` and `reason`. Both are stored, so they may hold nothing that PostgreSQL refuses (NUL).
    """

    TYPE: ClassVar[str] = "groundswell.signature.erase.v1"

    actor: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MOST_ACTOR, pattern=rf"^[^{NOT_IN_A_LINE}]+$"),
        Field(repr=False),
    ]
    """Who has asked."""
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=MOST_REASON, pattern=rf"^[^{NOT_IN_A_LINE}]+$"),
        Field(repr=False),
    ]
    """Why."""


Command = SignCommand | ConfirmCommand | WithdrawCommand | InvalidateCommand | EraseCommand

# ------------------------------------------------------------------------------- signatures.verified: facts that count


class CountedFact(Event):
    """One change of a petition's count, as it stands in the ledger.

    ``lane`` and ``position`` name the ledger row: within a lane, positions of one petition's facts only rise, so a
    reader that keeps the last position per (petition, lane) drops every redelivery. The event's id is the command's.
    """

    signature_id: UUID
    """The signature that counts, or no longer does."""
    petition_id: PetitionId
    """The petition that it is for."""
    lane: Annotated[int, Field(ge=0)]
    """The part of the ledger that the row stands in."""
    position: Annotated[int, Field(ge=1)]
    """The row's place in its lane."""
    country: CountryCode
    """The signer's country, ISO 3166-1 alpha-2."""
    signed_at: AwareDatetime
    """When the signature was submitted: break-downs by minute use this, for a revocation too, so they never go below 0."""
    occurred_at: AwareDatetime
    """When the command that caused this change was given."""


class SignatureVerified(CountedFact):
    """A signature stands: +1."""

    TYPE: ClassVar[str] = "groundswell.signature.verified.v1"

    delta: Literal[1] = 1
    """How the count changes."""


class SignatureRevoked(CountedFact):
    """A signature that stood does so no longer: -1."""

    TYPE: ClassVar[str] = "groundswell.signature.revoked.v1"

    delta: Literal[-1] = -1
    """How the count changes."""
    cause: RevocationText
    """Who took it back: ``withdrawn``, the signer; ``invalidated``, a moderator."""


# ------------------------------------------------------------------------------------------------- signatures.rejected


class SignatureRejected(Event):
    """A submission that does not count, and why. ``reason`` is a code of docs/reason-codes.md."""

    TYPE: ClassVar[str] = "groundswell.signature.rejected.v1"

    signature_id: UUID
    """The submission's id."""
    petition_id: PetitionId
    """The petition that it was for."""
    outcome: RefusalText
    """``duplicate``: the signer has signed before; ``rejected``: the petition's rules do not allow it."""
    reason: str
    """A code of docs/reason-codes.md. There may be new ones at any time."""
    submitted_at: AwareDatetime
    """When ingest accepted the submission."""
