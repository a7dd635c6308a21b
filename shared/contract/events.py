"""Every event that Groundswell puts on a topic, as strict, versioned models.

Events travel as CloudEvents 1.0 in Kafka binary mode: the attributes are ``ce_*`` headers (`shared.kafka.headers`), the
value is the model's JSON. A model's ``TYPE`` is its CloudEvents type; the number at its end is raised only when old
readers could no longer read the new form. Fields may be *added* without that: readers ignore what they do not know.

Only the commands on ``signatures.submitted`` carry personal data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container
from datetime import datetime
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shared.contract.bounds.numbers import MOST_BLOCKED_DOMAINS, MOST_MILESTONES, MOST_SUPPORTERS, MOST_TARGETS
from shared.contract.bounds.texts import (
    MOST_ACTOR,
    MOST_CHARACTERS,
    MOST_OFFICE,
    MOST_PAUSE,
    MOST_REASON,
    MOST_TEXT,
    MOST_TITLE,
    NOT_IN_A_LINE,
    SLUG,
    clean_address,
    clean_code,
    clean_line,
    clean_text,
)
from shared.contract.bounds.times import calendar_utc
from shared.contract.countries import COUNTRIES
from shared.contract.identity import canonical_domain, domain_of_rule

Slug = Annotated[str, StringConstraints(pattern=rf"^{SLUG}$")]

PetitionId = Slug

CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2, upper case; the code's existence is verify's rule (``country_unknown``), not its shape."""

EmailText = Annotated[str, StringConstraints(min_length=3, max_length=MOST_CHARACTERS["email"])]
"""An e-mail address, in any spelling."""


_COUNTRY: Final = re.compile("[A-Z]{2}")


def _cleaned(clean: Callable[[str], str]) -> BeforeValidator:
    """Puts a text into the form that is stored, whoever wrote it: a record on the topic may be older than these rules. What
    would be left empty stays as it is, so that no petition of before is lost; a new one is refused (see ingest)."""

    def cleaned(value: object) -> object:
        return (clean(value) or value) if isinstance(value, str) else value

    return BeforeValidator(cleaned)


def _line(most: int) -> BeforeValidator:
    return _cleaned(lambda text: clean_line(text, most))


def _country_code(value: object) -> object:
    code = clean_code(value) if isinstance(value, str) else value
    if isinstance(code, str) and not _COUNTRY.fullmatch(code):
        raise PydanticCustomError("not_a_country_code", "must be a country code of two letters")
    return code


def _in_calendar(moment: datetime) -> datetime:
    utc = calendar_utc(moment)
    if utc is None:
        raise PydanticCustomError("time_out_of_range", "must be in the years 1 to 9999 in UTC")
    return utc


PetitionTime = Annotated[AwareDatetime, AfterValidator(_in_calendar)]
"""A time of a petition: in UTC from here on, so that nothing later can fail to convert it."""

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


class Event(BaseModel):
    """The common ground of all events: immutable, strict types, unknown fields ignored."""

    # An error's text would repeat what was sent, and errors reach logs. The docstrings of fields are their descriptions in
    # the published schemas.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    TYPE: ClassVar[str]


# ---------------------------------------------------------------- signatures.submitted: commands, with personal data


class SignCommand(Event):
    """A signer asks to support a petition. The event's id is the signature's id, so a client's retry is a replay.

    Its ``repr`` leaves out who signs: that is what an exception shows of it, and exceptions are logged.
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
    """What the commands about an existing signature have in common."""

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

    Who asked and why is written by operators. It is stored, so it may hold nothing that PostgreSQL refuses (NUL).
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
    cause: Literal["withdrawn", "invalidated"]
    """Who took it back: ``withdrawn``, the signer; ``invalidated``, a moderator."""


# ------------------------------------------------------------------------------------------------- signatures.rejected


class SignatureRejected(Event):
    """A submission that does not count, and why. ``reason`` is a code of docs/reason-codes.md."""

    TYPE: ClassVar[str] = "groundswell.signature.rejected.v1"

    signature_id: UUID
    """The submission's id."""
    petition_id: PetitionId
    """The petition that it was for."""
    outcome: Literal["duplicate", "rejected"]
    """``duplicate``: the signer has signed before; ``rejected``: the petition's rules do not allow it."""
    reason: str
    """A code of docs/reason-codes.md. There may be new ones at any time."""
    submitted_at: AwareDatetime
    """When ingest accepted the submission."""


# --------------------------------------------------------------------------------------------------- petitions.changed


class Organisation(Event):
    """Who starts petitions."""

    TYPE: ClassVar[str] = "groundswell.organisation.v1"

    slug: Slug
    """The organisation's id: part of its page's address."""
    name: Annotated[str, _line(MOST_OFFICE), StringConstraints(min_length=1, max_length=MOST_OFFICE)]
    """The organisation's name as people read it."""


class Target(Event):
    """A person (by office) or body that a petition addresses. The address is that of the office, published by it."""

    TYPE: ClassVar[str] = "groundswell.target.v1"

    target_id: Slug
    """The target's id, unique in its petition."""
    name: Annotated[str, _line(MOST_OFFICE), StringConstraints(min_length=1, max_length=MOST_OFFICE)]
    """The office or body as people read it."""
    kind: Literal["person", "body"] = "person"
    """Whether an office that one person holds, or a body of several."""
    email: Annotated[EmailText, _cleaned(clean_address)]
    """Where mails about milestones go."""


class Policy(Event):
    """Which signatures of a petition stand."""

    TYPE: ClassVar[str] = "groundswell.policy.v1"

    confirmation: Literal["none", "required"] = "none"
    """``required``: a signature is pending until its e-mail address was confirmed."""
    countries: list[Annotated[CountryCode, BeforeValidator(_country_code)]] | None = None
    """Only signers of these countries count; ``null``: all do."""
    blocked_email_domains: list[Annotated[str, _cleaned(domain_of_rule)]] = Field(
        default_factory=list, max_length=MOST_BLOCKED_DOMAINS
    )
    """A domain blocks everything below it too. ``@mail.example`` and ``*.mail.example`` mean ``mail.example``."""
    require_consent: bool = False
    """Only signers who have given their consent count."""

    @field_validator("countries", "blocked_email_domains")
    @classmethod
    def _once(cls, values: list[str] | None) -> list[str] | None:
        return None if values is None else list(dict.fromkeys(values))

    @cached_property
    def eligible(self) -> Container[str]:
        """The codes of the countries whose signers count."""
        return COUNTRIES.keys() if self.countries is None else COUNTRIES.keys() & set(self.countries)

    def blocks(self, domain: str) -> bool:
        """Whether addresses of `domain`, in its canonical spelling, are refused."""
        if not self.blocked_email_domains:
            return False
        blocked = self._blocked
        while domain:
            if domain in blocked:
                return True
            domain = domain.partition(".")[2]
        return False

    @cached_property
    def _blocked(self) -> frozenset[str]:
        return frozenset(canonical_domain(domain) for domain in self.blocked_email_domains)


class Pause(Event):
    """A petition takes no signatures for the time being."""

    TYPE: ClassVar[str] = "groundswell.pause.v1"

    sentence: Annotated[str, _line(MOST_PAUSE), StringConstraints(min_length=1, max_length=MOST_PAUSE)]
    """What visitors read in place of the form."""


MOST_VERSION: Final = 2**53 - 1
"""The largest integer that every reader of JSON has exactly."""


class PetitionState(Event):
    """What a petition is: the body of ``PUT /v1/petitions/{petition_id}``."""

    TYPE: ClassVar[str] = "groundswell.petition.state.v1"

    organisation: Organisation
    """Who has started the petition."""
    title: Annotated[str, _line(MOST_TITLE), StringConstraints(min_length=1, max_length=MOST_TITLE)]
    """One line."""
    text: Annotated[
        str,
        _cleaned(lambda text: clean_text(text, MOST_TEXT)),
        StringConstraints(min_length=1, max_length=MOST_TEXT),
    ]
    """What is asked for, as plain text."""
    targets: list[Target] = Field(min_length=1, max_length=MOST_TARGETS)
    """Whom the petition addresses."""
    milestones: list[Annotated[int, Field(ge=1, le=MOST_SUPPORTERS)]] = Field(
        default_factory=list, max_length=MOST_MILESTONES
    )
    """Counts at which the targets are told, rising."""
    opens_at: PetitionTime | None = None
    """When signing begins; ``null``: it has begun."""
    closes_at: PetitionTime | None = None
    """When signing ends; ``null``: it does not."""
    policy: Policy = Policy()
    """Which signatures count."""
    paused: Pause | None = None
    """Signatures that were accepted before count; no others are accepted."""
    published: bool = True
    """Without it the petition is shown nowhere, takes no signatures, and no mail goes to its targets. What was accepted
    counts."""
    language: Language | None = None
    """The language of the texts: title, text, and the names of organisation and targets; ``null``: not known."""

    @model_validator(mode="after")
    def _consistent(self) -> PetitionState:
        if self.milestones != sorted(set(self.milestones)):
            raise PydanticCustomError("milestones_not_rising", "milestones must rise from one to the next, each once")
        if self.opens_at and self.closes_at and self.opens_at >= self.closes_at:
            raise PydanticCustomError("closes_before_it_opens", "opens_at must be before closes_at")
        ids = [target.target_id for target in self.targets]
        if len(set(ids)) != len(ids):
            raise PydanticCustomError("target_id_repeated", "each target_id may appear once")
        return self


class PetitionChanged(PetitionState):
    """The whole state of a petition after a change; the topic is compacted, so the last one of each petition stays."""

    TYPE: ClassVar[str] = "groundswell.petition.changed.v1"

    petition_id: PetitionId
    """The petition's id: part of its page's address, and the key of the record."""
    changed_at: PetitionTime
    """When ingest accepted the change."""
    version: Annotated[int, Field(ge=0, le=MOST_VERSION)] = 0
    """Rises with every change: milliseconds since 1970 by PostgreSQL's clock, and at least one above the version before. A
    record whose version is below one that stood before it came late, from a process that was overtaken: pass it over. 0:
    not known, and the order of the topic decides; so it is with one more than a day after its record's own time."""
    mailbox_rules: Annotated[int, Field(ge=1)] = 1
    """Which version of the mail providers' rules (shared/contract/mailboxes) says what two spellings of one address are. The
    petition keeps the one that it was made with: a signer's key must not change while it runs."""


# ----------------------------------------------------------------------------------------- tallies.updated, milestones


class TallyUpdated(Event):
    """The live count of a petition. Whole, not a difference: a reader that missed some is right again with the next.

    Apply a snapshot only if its version, ``(epoch, revision)``, is above the one you have. An epoch that lies more than a
    day after the record's own time is none that tally has written.
    """

    TYPE: ClassVar[str] = "groundswell.tally.updated.v1"

    petition_id: PetitionId
    """The petition that is counted."""
    count: Annotated[int, Field(ge=0)]
    """How many signatures stand."""
    revision: Annotated[int, Field(ge=0)]
    """How many changes this count includes: it rises by one per change, also when the count falls."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """0, or the time (milliseconds since 1970) at which tally took back what stood on the topic with a higher revision: a
    snapshot that nobody had counted, or changes that the ledger has lost."""
    countries: dict[str, int]
    """Standing signatures by the signer's country, ISO 3166-1 alpha-2."""
    minutes: dict[str, int]
    """Standing signatures by the minute they were submitted (UTC, ``2026-11-22T10:42Z``): the hour that ends with the minute
    of the newest signature; minutes without any are left out."""
    earlier: int
    """Standing signatures submitted before those minutes: ``count = earlier + sum(minutes)``."""
    updated_at: AwareDatetime
    """When tally counted the newest of these changes."""

    @property
    def version(self) -> tuple[int, int]:
        """``(epoch, revision)``: of two snapshots of one petition, the one with the higher version holds."""
        return self.epoch, self.revision


class MilestoneReached(Event):
    """A petition's count crossed a threshold, which happens at most once, ever."""

    TYPE: ClassVar[str] = "groundswell.milestone.reached.v1"

    petition_id: PetitionId
    """The petition whose count it was."""
    threshold: Annotated[int, Field(ge=1)]
    """The milestone: at least so many signatures stood."""
    count: Annotated[int, Field(ge=1)]
    """How many stood when the crossing was seen; at least the threshold."""
    revision: Annotated[int, Field(ge=1)]
    """The revision of that count."""
    reached_at: AwareDatetime
    """When tally counted the signature that crossed the threshold."""


def minute_of(moment: datetime) -> int:
    """The minute that `moment` lies in, as whole minutes since 1970-01-01 UTC."""
    return math.floor(moment.timestamp() / 60)
