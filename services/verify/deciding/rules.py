"""Deciding a signature: the rules, and the order in which the commands of a batch take effect. No I/O.

Rules depend on the petition and on the command's own time, never on the clock. Decisions are final: the store answers a
replayed command with the stored outcome, so the rules decide a signature once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from shared.contract.catalogue import Admission, admission_at
from shared.contract.eligibility import refusal
from shared.contract.events import ChangeCommand, Command, PetitionChanged, SignCommand
from shared.contract.states import CountChange, SignatureState

_VERIFIED: Final = SignatureState.VERIFIED
_PENDING: Final = SignatureState.PENDING


class Reason(StrEnum):
    """Why a submission does not count. docs/reason-codes.md explains each to a reader of the topic."""

    ALREADY_SIGNED = "already_signed"
    PETITION_UNKNOWN = "petition_unknown"
    PETITION_NOT_OPEN = "petition_not_open"
    PETITION_CLOSED = "petition_closed"
    EMAIL_DOMAIN_BLOCKED = "email_domain_blocked"
    COUNTRY_UNKNOWN = "country_unknown"
    COUNTRY_NOT_ELIGIBLE = "country_not_eligible"
    CONSENT_MISSING = "consent_missing"
    NAME_INVALID = "name_invalid"


NEEDS_NO_PETITION: Final = frozenset({Reason.ALREADY_SIGNED, Reason.COUNTRY_UNKNOWN, Reason.NAME_INVALID})
"""Reasons that a newer state of the petition cannot change."""

REASONS: Final[dict[Reason, str]] = {
    Reason.ALREADY_SIGNED: "This signer's signature on this petition stands, waits for confirmation, or was struck out.",
    Reason.PETITION_UNKNOWN: "No petition with this id was known when the signature was decided.",
    Reason.PETITION_NOT_OPEN: "The signature was submitted before the petition opened.",
    Reason.PETITION_CLOSED: "The signature was submitted at or after the petition's closing time.",
    Reason.EMAIL_DOMAIN_BLOCKED: "The petition does not accept e-mail addresses of this domain.",
    Reason.COUNTRY_UNKNOWN: "The country code is not an officially assigned ISO 3166-1 code.",
    Reason.COUNTRY_NOT_ELIGIBLE: "The petition counts signatures of certain countries only, and this is not one of them.",
    Reason.CONSENT_MISSING: "The petition requires consent, and it was not given.",
    Reason.NAME_INVALID: "The name holds no letter, or a web address instead of a name.",
}
"""What each reason means, in a sentence; docs/reason-codes.md is generated from it."""


class SubmittedCommand(NamedTuple):
    """A command from the topic, with its lane, offset and key.

    A tuple, as `Change` is: one is made for every signature, and a frozen dataclass takes a microsecond longer.
    """

    event_id: UUID
    signer_key: UUID
    """The signer, from the record key. Commands of one signer take effect in their order."""
    lane: int
    offset: int
    moment: datetime
    """When the command was given, in UTC."""
    command: Command
    email_domain: str = ""
    """Of a sign command: the domain of the canonical address. The rest of the address is not kept."""

    def __repr__(self) -> str:
        """Without the e-mail domain, because exceptions are logged."""
        return f"SubmittedCommand(event_id={self.event_id!r}, lane={self.lane}, offset={self.offset})"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision on a sign command before the signer's other signatures are considered."""

    state: SignatureState
    """``verified``, ``pending`` or ``rejected``."""
    reason: Reason | None = None


def judge(submission: SubmittedCommand, petition: PetitionChanged | None) -> Judgement:
    """Apply the petition's rules to a sign command. The first rule that refuses gives the reason."""
    command = submission.command
    assert isinstance(command, SignCommand)
    reason = _refusal(command, submission, petition)
    if reason is not None:
        return Judgement(SignatureState.REJECTED, reason)
    assert petition is not None
    return Judgement(_PENDING if petition.policy.confirmation == "required" else _VERIFIED)


def _refusal(command: SignCommand, submission: SubmittedCommand, petition: PetitionChanged | None) -> Reason | None:
    if petition is None:
        return Reason.PETITION_UNKNOWN
    admission = admission_at(petition, submission.moment)
    if admission is Admission.NOT_YET_OPEN:
        return Reason.PETITION_NOT_OPEN
    if admission is Admission.CLOSED:
        return Reason.PETITION_CLOSED
    code = refusal(
        petition.policy,
        email_domain=submission.email_domain,
        country=command.country,
        consent=command.consent,
        name=command.name,
    )
    return None if code is None else Reason(code)


def in_rounds(submissions: Sequence[SubmittedCommand]) -> list[list[SubmittedCommand]]:
    """Split a batch into rounds, so that set-based SQL keeps the order of each signer's commands.

    Different signers do not affect each other, so their commands can be applied as a set. So can consecutive sign commands
    of one signer: they are inserted in the order of arrival, and the first counts. A signer who sends a thousand costs no
    more than a thousand signers. Any other command comes in a round after the signer's earlier commands and before the
    later ones. Almost every batch is one round.
    """
    rounds: list[list[SubmittedCommand]] = []
    last: dict[UUID, tuple[int, bool]] = {}  # by signer: the last command's round, and whether it is a sign command
    for submission in submissions:
        turn, signs = last.get(submission.signer_key, (0, True))
        if not (signs and is_sign(submission)) and submission.signer_key in last:
            turn += 1
        last[submission.signer_key] = turn, is_sign(submission)
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(submission)
    return rounds


class Change(NamedTuple):
    """One change of a count, to be appended to the ledger."""

    submission: SubmittedCommand
    kind: CountChange
    delta: int
    petition_id: str
    signature_id: UUID
    country: str
    signed_at: datetime
    occurred_at: datetime


def in_lane_order(changes: Sequence[Change]) -> list[Change]:
    """Sort changes by lane and offset of their commands: the order in which they get positions.

    So the positions of a lane rise with the offsets of the commands, whichever process decides them and however the
    records were cut into batches. The readers' fences rely on that.
    """
    return sorted(changes, key=lambda change: (change.submission.lane, change.submission.offset))


def is_sign(submission: SubmittedCommand) -> bool:
    """Whether this is a sign command, as opposed to one about an existing signature."""
    return not isinstance(submission.command, ChangeCommand)
