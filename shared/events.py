"""Every event that Groundswell puts on a topic, as strict, versioned models.

Events travel as CloudEvents 1.0 in Kafka binary mode: the attributes are ``ce_*`` headers (`shared.kafka.headers`), the
value is the model's JSON. A model's ``TYPE`` is its CloudEvents type; the number at its end is raised only when old
readers could no longer read the new form. Fields may be *added* without that: readers ignore what they do not know.

Only the commands on ``signatures.submitted`` carry personal data.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.identity import canonical_domain

PetitionId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
"""A slug: it is part of URLs, topic keys and Redis keys, so it may hold nothing that needs escaping in any of them."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]

CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2, upper case; the code's existence is verify's rule (``country_unknown``), not its shape."""

EmailText = Annotated[str, StringConstraints(min_length=3, max_length=320)]
"""An e-mail address as typed. 320 = 64 (local part) + 1 + 255 (domain), RFC 5321 section 4.5.3.1."""

_LANGUAGE: Final = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"


def _well_formed(language: str) -> str:
    if not re.fullmatch(_LANGUAGE, language):
        raise ValueError("must be a language tag (BCP 47), such as nl, pt-BR or ar")
    return language


Language = Annotated[
    str,
    StringConstraints(max_length=35),
    AfterValidator(_well_formed),
    Field(json_schema_extra={"pattern": _LANGUAGE}),
]
"""A well-formed language tag (RFC 5646, section 2.1; 35 letters are what section 4.4.1 asks readers to take). Whether its
parts are registered is checked where a petition is changed: the registry grows, and readers must not disagree about it."""

NOT_IN_A_LINE: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""What no text of one line may hold, as a class of characters in a regular expression: control characters (C0, C1), line
and paragraph separators, and the bidirectional overrides that make text read as another. Zero-width joiners are not
among them: Persian and Indic names need them."""


class Event(BaseModel):
    """The common ground of all events: immutable, strict types, unknown fields ignored."""

    # An error's text would repeat what was sent, and errors reach logs.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)

    TYPE: ClassVar[str]


# ---------------------------------------------------------------- signatures.submitted: commands, with personal data


class SignCommand(Event):
    """A signer asks to support a petition. The event's id is the signature's id, so a client's retry is a replay.

    Its ``repr`` leaves out who signs: that is what an exception shows of it, and exceptions are logged.
    """

    TYPE: ClassVar[str] = "groundswell.signature.sign.v1"

    signature_id: UUID
    petition_id: PetitionId
    email: EmailText = Field(repr=False)
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(repr=False)
    country: CountryCode
    postcode: Annotated[str, StringConstraints(max_length=20)] | None = Field(None, repr=False)
    comment: Annotated[str, StringConstraints(max_length=2000)] | None = Field(None, repr=False)
    consent: bool = False
    submitted_at: AwareDatetime


class ChangeCommand(Event):
    """What the commands about an existing signature have in common."""

    signature_id: UUID
    petition_id: PetitionId
    requested_at: AwareDatetime


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

    Who asked and why is written by operators. It is stored, so it may hold nothing that PostgreSQL refuses (NUL).
    """

    TYPE: ClassVar[str] = "groundswell.signature.erase.v1"

    actor: Annotated[
        str, StringConstraints(min_length=1, max_length=100, pattern=rf"^[^{NOT_IN_A_LINE}]+$"), Field(repr=False)
    ]
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=500, pattern=rf"^[^{NOT_IN_A_LINE}]+$"), Field(repr=False)
    ]


Command = SignCommand | ConfirmCommand | WithdrawCommand | InvalidateCommand | EraseCommand

# ------------------------------------------------------------------------------- signatures.verified: facts that count


class CountedFact(Event):
    """One change of a petition's count, as it stands in the ledger.

    ``lane`` and ``position`` name the ledger row: within a lane, positions of one petition's facts only rise, so a
    reader that keeps the last position per (petition, lane) drops every redelivery. The event's id is the command's.
    """

    signature_id: UUID
    petition_id: PetitionId
    lane: Annotated[int, Field(ge=0)]
    position: Annotated[int, Field(ge=1)]
    country: CountryCode
    signed_at: AwareDatetime
    """When the signature was submitted: break-downs by minute use this, for a revocation too, so they never go below 0."""
    occurred_at: AwareDatetime
    """When the command that caused this change was given."""


class SignatureVerified(CountedFact):
    """A signature stands: +1."""

    TYPE: ClassVar[str] = "groundswell.signature.verified.v1"

    delta: Literal[1] = 1


class SignatureRevoked(CountedFact):
    """A signature that stood does so no longer: -1."""

    TYPE: ClassVar[str] = "groundswell.signature.revoked.v1"

    delta: Literal[-1] = -1
    cause: Literal["withdrawn", "invalidated"]


Fact = SignatureVerified | SignatureRevoked

# ------------------------------------------------------------------------------------------------- signatures.rejected


class SignatureRejected(Event):
    """A submission that does not count, and why. ``reason`` is a code of docs/reason-codes.md."""

    TYPE: ClassVar[str] = "groundswell.signature.rejected.v1"

    signature_id: UUID
    petition_id: PetitionId
    outcome: Literal["duplicate", "rejected"]
    reason: str
    submitted_at: AwareDatetime


# --------------------------------------------------------------------------------------------------- petitions.changed


class Organisation(Event):
    """Who starts petitions."""

    TYPE: ClassVar[str] = "groundswell.organisation.v1"

    slug: Slug
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Target(Event):
    """A person (by office) or body that a petition addresses. The address is that of the office, published by it."""

    TYPE: ClassVar[str] = "groundswell.target.v1"

    target_id: Slug
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    kind: Literal["person", "body"] = "person"
    email: EmailText


class Policy(Event):
    """Which signatures of a petition stand."""

    TYPE: ClassVar[str] = "groundswell.policy.v1"

    confirmation: Literal["none", "required"] = "none"
    """``required``: a signature is pending until its e-mail address was confirmed."""
    countries: list[CountryCode] | None = None
    """Only signers of these countries count; ``null``: all do."""
    blocked_email_domains: list[str] = Field(default_factory=list, max_length=10_000)
    """In any spelling; a domain blocks everything below it too."""
    require_consent: bool = False

    def blocks(self, domain: str) -> bool:
        """Whether addresses of `domain`, in its canonical spelling, are refused."""
        if not self.blocked_email_domains:
            return False
        labels = domain.split(".")
        return any(".".join(labels[start:]) in self._blocked for start in range(len(labels)))

    @cached_property
    def _blocked(self) -> frozenset[str]:
        return frozenset(canonical_domain(domain) for domain in self.blocked_email_domains)


class PetitionState(Event):
    """What a petition is: the body of ``PUT /v1/petitions/{petition_id}``."""

    TYPE: ClassVar[str] = "groundswell.petition.state.v1"

    organisation: Organisation
    title: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    text: Annotated[str, StringConstraints(min_length=1, max_length=50_000)]
    targets: list[Target] = Field(min_length=1, max_length=50)
    milestones: list[Annotated[int, Field(ge=1, le=10_000_000_000)]] = Field(default_factory=list, max_length=100)
    opens_at: AwareDatetime | None = None
    closes_at: AwareDatetime | None = None
    policy: Policy = Policy()
    language: Language | None = None
    """The language of the texts: title, text, and the names of organisation and targets; ``null``: not known."""

    @model_validator(mode="after")
    def _consistent(self) -> PetitionState:
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError("milestones must rise from one to the next, each once")
        if self.opens_at and self.closes_at and self.opens_at >= self.closes_at:
            raise ValueError("opens_at must be before closes_at")
        ids = [target.target_id for target in self.targets]
        if len(set(ids)) != len(ids):
            raise ValueError("each target_id may appear once")
        return self


class PetitionChanged(PetitionState):
    """The whole state of a petition after a change; the topic is compacted, so the last one of each petition stays."""

    TYPE: ClassVar[str] = "groundswell.petition.changed.v1"

    petition_id: PetitionId
    changed_at: AwareDatetime


# ----------------------------------------------------------------------------------------- tallies.updated, milestones


class TallyUpdated(Event):
    """The live count of a petition. Whole, not a difference: a reader that missed some is right again with the next.

    Apply a snapshot only if its version, ``(epoch, revision)``, is above the one you have. An epoch that lies more than a
    day after the record's own time is none that tally has written.
    """

    TYPE: ClassVar[str] = "groundswell.tally.updated.v1"

    petition_id: PetitionId
    count: Annotated[int, Field(ge=0)]
    revision: Annotated[int, Field(ge=0)]
    """How many changes this count includes: it rises by one per change, also when the count falls."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """0, or the time (milliseconds since 1970) at which tally took back what stood on the topic with a higher revision: a
    snapshot that nobody had counted, or changes that the ledger has lost."""
    countries: dict[str, int]
    minutes: dict[str, int]
    """Standing signatures by the minute they were submitted (UTC, ``2026-11-22T10:42Z``): the hour that ends with the minute
    of the newest signature; minutes without any are left out."""
    earlier: int
    """Standing signatures submitted before those minutes: ``count = earlier + sum(minutes)``."""
    updated_at: AwareDatetime

    @property
    def version(self) -> tuple[int, int]:
        """``(epoch, revision)``: of two snapshots of one petition, the one with the higher version holds."""
        return self.epoch, self.revision


class MilestoneReached(Event):
    """A petition's count crossed a threshold, which happens at most once, ever."""

    TYPE: ClassVar[str] = "groundswell.milestone.reached.v1"

    petition_id: PetitionId
    threshold: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    revision: Annotated[int, Field(ge=1)]
    reached_at: AwareDatetime


def minute_of(moment: datetime) -> int:
    """The minute that `moment` lies in, as whole minutes since 1970-01-01 UTC."""
    return math.floor(moment.timestamp() / 60)
