"""Models of ingest's answers: they make the answers, and the schemas in docs/openapi.json."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.contract.catalogue import Admission, admission_at
from shared.contract.events import (
    Confirmation,
    Organisation,
    Pause,
    PetitionChanged,
    PetitionId,
    PetitionState,
    TargetKind,
)
from shared.contract.states import SignatureState
from shared.web.problems import ProblemDetails

State = Literal[
    SignatureState.SUBMITTED,
    SignatureState.PENDING,
    SignatureState.VERIFIED,
    SignatureState.DUPLICATE,
    SignatureState.REJECTED,
    SignatureState.WITHDRAWN,
    SignatureState.INVALIDATED,
]
"""All states, as a literal, so that the schema of a status lists them inline and not by reference."""


class Answer(BaseModel):
    """The base of all answers."""

    model_config = ConfigDict(frozen=True)


class SignatureSubmitted(Answer):
    """The submission is durable and will be decided. A signer who has signed before gets the same answer."""

    signature_id: UUID
    status: Literal[SignatureState.SUBMITTED] = SignatureState.SUBMITTED
    status_url: Annotated[str, Field(description="Where to ask for the outcome.")]


class CommandSubmitted(Answer):
    """The command is durable and will be carried out."""

    signature_id: UUID
    status_url: str


class SignatureStatus(Answer):
    """The status of a signature."""

    signature_id: UUID
    petition_id: Annotated[str | None, Field(description="null until the signature is decided.")]
    status: State
    reason: Annotated[str | None, Field(description="Why it is rejected: a code of docs/reason-codes.md.")]
    decided_at: AwareDatetime | None
    erased_at: Annotated[
        AwareDatetime | None,
        Field(description="When an operator erased the signer. Always null without credentials."),
    ] = None


class LineAccepted(Answer):
    """A line that Kafka has acknowledged."""

    line: Annotated[int, Field(ge=1)]
    status: Literal[202] = 202
    signature_id: UUID
    status_url: str


class LineRefused(Answer):
    """A line that was not accepted. Status 503: send the line again, with the same idempotency key."""

    line: Annotated[int, Field(ge=1)]
    status: int
    problem: ProblemDetails


class BatchAnswer(Answer):
    """One result per line, in the batch's order. Lines are counted from 1; empty lines are skipped."""

    results: list[LineAccepted | LineRefused]


class PublicTarget(Answer):
    """A target of a petition. Its e-mail address is not shown: mails go through Groundswell, not around it."""

    target_id: str
    name: str
    kind: TargetKind


class PublicPolicy(Answer):
    """The policy for signers. The list of blocked mail domains is not shown: it would reveal those that are not on it."""

    confirmation: Confirmation
    countries: list[str] | None
    require_consent: bool


class PublicPetition(Answer):
    """The public part of a petition."""

    petition_id: PetitionId
    organisation: Organisation
    title: str
    text: str
    language: Annotated[str | None, Field(description="The language of these texts (BCP 47); null: not known.")]
    targets: list[PublicTarget]
    milestones: list[int]
    opens_at: AwareDatetime | None
    closes_at: AwareDatetime | None
    policy: PublicPolicy
    paused: Annotated[Pause | None, Field(description="Why it takes no signatures for the time being.")]
    admission: Annotated[Admission, Field(description="Whether it takes signatures now.")]
    changed_at: AwareDatetime


class PetitionBody(PetitionState):
    """The whole state of a petition, as GET returns it. Fields that ingest sets itself may be present and are ignored."""

    petition_id: Annotated[PetitionId | None, Field(description="If present, it must be the one in the path.")] = None
    changed_at: Annotated[AwareDatetime | None, Field(description="Ignored.")] = None
    version: Annotated[int | None, Field(description="Ignored; If-Match names the state to be changed.")] = None
    mailbox_rules: Annotated[int | None, Field(description="Ignored: a petition keeps those it was created with.")] = (
        None
    )


class ListedPetition(Answer):
    """A petition in an administrator's list."""

    petition_id: PetitionId
    organisation: Organisation
    title: str
    published: bool
    paused: bool
    admission: Admission
    changed_at: AwareDatetime
    etag: Annotated[str, Field(description="The value for If-Match.")]


class PetitionList(Answer):
    """Petitions by id."""

    petitions: list[ListedPetition]
    next: Annotated[str | None, Field(description="The address of the list's next part; null at its end.")]


def public_petition(petition: PetitionChanged, moment: AwareDatetime) -> PublicPetition:
    """The public part of a petition's state."""
    fields = petition.model_dump()
    return PublicPetition(**fields, admission=admission_at(petition, moment))


def status_url(signature_id: UUID | str) -> str:
    """The address of a signature's status, relative to ingest's base URL."""
    return f"/v1/signatures/{signature_id}"
