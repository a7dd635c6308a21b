"""The state of a petition, on its topic and in the request that changes it."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared.contract.bounds.numbers import MOST_BLOCKED_DOMAINS, MOST_MILESTONES, MOST_SUPPORTERS, MOST_TARGETS
from shared.contract.bounds.texts import MOST_OFFICE, MOST_PAUSE, MOST_TEXT, MOST_TITLE, clean_address, clean_text
from shared.contract.countries import COUNTRIES
from shared.contract.events.base import (
    CountryCode,
    EmailText,
    Event,
    Language,
    PetitionId,
    PetitionTime,
    Slug,
    cleaned_by,
    country_code,
    line,
)
from shared.contract.identity import canonical_domain, domain_of_rule

TargetKind = Literal["person", "body"]
Confirmation = Literal["none", "required"]


class Organisation(Event):
    """Who starts petitions."""

    TYPE: ClassVar[str] = "groundswell.organisation.v1"

    slug: Slug
    """The organisation's id: part of its page's address."""
    name: Annotated[str, line(MOST_OFFICE), StringConstraints(min_length=1, max_length=MOST_OFFICE)]
    """The organisation's name as people read it."""


class Target(Event):
    """A person (by office) or body that a petition addresses. The address is that of the office, published by it."""

    TYPE: ClassVar[str] = "groundswell.target.v1"

    target_id: Slug
    """The target's id, unique in its petition."""
    name: Annotated[str, line(MOST_OFFICE), StringConstraints(min_length=1, max_length=MOST_OFFICE)]
    """The office or body as people read it."""
    kind: TargetKind = "person"
    """Whether an office that one person holds, or a body of several."""
    email: Annotated[EmailText, cleaned_by(clean_address)]
    """Where mails about milestones go."""


class Policy(Event):
    """Which signatures of a petition stand."""

    TYPE: ClassVar[str] = "groundswell.policy.v1"

    confirmation: Confirmation = "none"
    """``required``: a signature is pending until its e-mail address was confirmed."""
    countries: list[Annotated[CountryCode, BeforeValidator(country_code)]] | None = None
    """Only signers of these countries count; ``null``: all do."""
    blocked_email_domains: list[Annotated[str, cleaned_by(domain_of_rule)]] = Field(
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

    sentence: Annotated[str, line(MOST_PAUSE), StringConstraints(min_length=1, max_length=MOST_PAUSE)]
    """What visitors read in place of the form."""


MOST_VERSION: Final = 2**53 - 1
"""The largest integer that every JSON reader represents exactly (RFC 8259, section 6)."""


class PetitionState(Event):
    """What a petition is: the body of ``PUT /v1/petitions/{petition_id}``."""

    TYPE: ClassVar[str] = "groundswell.petition.state.v1"

    organisation: Organisation
    """Who has started the petition."""
    title: Annotated[str, line(MOST_TITLE), StringConstraints(min_length=1, max_length=MOST_TITLE)]
    """One line."""
    text: Annotated[
        str,
        cleaned_by(lambda text: clean_text(text, MOST_TEXT)),
        StringConstraints(min_length=1, max_length=MOST_TEXT),
    ]
    """What is asked for, as plain text."""
    targets: list[Target] = Field(min_length=1, max_length=MOST_TARGETS)
    """Whom the petition addresses."""
    milestones: list[Annotated[int, Field(ge=1, le=MOST_SUPPORTERS)]] = Field(
        default_factory=list, max_length=MOST_MILESTONES
    )
    """Counts at which the targets get a mail, in ascending order."""
    opens_at: PetitionTime | None = None
    """When signing begins; ``null``: it has begun."""
    closes_at: PetitionTime | None = None
    """When signing ends; ``null``: it does not."""
    policy: Policy = Policy()
    """Which signatures count."""
    paused: Pause | None = None
    """Signatures that were accepted before count; no others are accepted."""
    published: bool = True
    """If false, the petition is shown nowhere, takes no signatures, and its targets get no mail. Signatures that were
    accepted before count."""
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
    """Rises with every change: milliseconds since 1970 by PostgreSQL's clock, and at least one above the previous version.
    Ignore a record whose version is below that of an earlier record: its writer was overtaken. 0: unknown, the order of the
    topic decides; a version that lies more than a day after its record's timestamp is treated as 0."""
    mailbox_rules: Annotated[int, Field(ge=1)] = 1
    """Version of the mail providers' rules (shared/contract/mailboxes) that decide which spellings are one address. A
    petition keeps the version that it was created with: signer keys must not change while it runs."""
