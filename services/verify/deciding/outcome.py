"""The outcome of a batch: the types that the store returns, and the meaning of stored rows for the commands of a batch.

Contract: no I/O. The store runs the statements and passes the rows that they returned; `Gathered` collects what they mean,
and `Gathered.decided` returns the outcome. The ledger is authoritative: a command whose event is in it is a replay, even if
the row of its signature was changed or deleted. A command that contradicts its ledger row is set aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from services.verify.deciding.rules import Change, Judgement, Reason, SubmittedCommand, is_sign
from shared.contract.events import (
    Command,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    SignCommand,
    WithdrawCommand,
)
from shared.contract.states import CountChange, Refusal, SignatureState

# A module's name is looked up in less than half the time of an enumeration's member.
_PENDING: Final = SignatureState.PENDING
_VERIFIED: Final = SignatureState.VERIFIED
_REJECTED: Final = SignatureState.REJECTED
_DUPLICATE: Final = SignatureState.DUPLICATE

CHANGES: Final[Mapping[type[Command], CountChange]] = {
    SignCommand: SignatureState.VERIFIED,
    ConfirmCommand: SignatureState.VERIFIED,
    WithdrawCommand: SignatureState.WITHDRAWN,
    InvalidateCommand: SignatureState.INVALIDATED,
}
"""The kind of ledger row that each command leads to, if it changes a count."""

UNKNOWN: Final = "unknown"
"""Stands for the state of a signature that does not exist."""


class LedgerRow(NamedTuple):
    """A row of the ledger; the fields are in the order of the table's columns."""

    lane: int
    position: int
    event_id: UUID
    petition_id: str
    signature_id: UUID
    kind: CountChange
    delta: int
    country: str
    signed_at: datetime
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class RefusedSignature:
    """A sign command that does not count."""

    submission: SubmittedCommand
    outcome: Refusal
    reason: str
    submitted_at: datetime
    """Of the command that was decided first. A client's retry has a later time, and must lead to the same event."""


class Mismatch(NamedTuple):
    """A command whose signature has another signer or petition than the command says. It changes nothing."""

    submission: SubmittedCommand
    field: Literal["petition_id", "signer_key"]
    """What differs; the petition, if both do."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The outcome of a batch."""

    ledger: list[LedgerRow]
    """All changes of counts that this batch must publish, including replayed ones, by lane and position."""
    refused: list[RefusedSignature]
    pending: int
    replays: frozenset[UUID]
    """Event ids of commands that had been decided before."""
    not_applicable: Counter[str]
    """The number of commands that changed nothing, by the state of their signature: ``unknown`` if there is none,
    ``duplicate`` if it is a duplicate of an unknown one."""
    mismatched: list[Mismatch] = field(default_factory=list)
    erased: int = 0
    """Signatures that this batch erased; repeated erasures are replays."""


class Gathered:
    """The outcome of a transaction so far. Rows are passed as the store's statements return them.

    Args:
        decided: Events that are known to be in the ledger: nothing is written for them.
    """

    def __init__(self, decided: Iterable[UUID] = ()) -> None:
        self.changes: list[Change] = []
        self.refused: list[RefusedSignature] = []
        self.replays: set[UUID] = set(decided)
        """Sign commands that are stored already, and erasures that were carried out."""
        self.unmatched: dict[UUID, str] = {}
        """Other commands that changed nothing, and the state of their signature: replays if the ledger has them, otherwise
        not applicable."""
        self.rejected: set[UUID] = set()
        """Sign commands that this transaction stored as rejected."""
        self.contradictions: dict[UUID, str] = {}
        """Sign commands that contradict what is stored under their id, with the contradiction."""
        self.mismatched: list[Mismatch] = []
        """These are replays, too, if the ledger has them."""
        self.erased = 0
        self.pending = 0

    # ---------------------------------------------------------------------------------------------------- sign commands

    def note_new(self, submission: SubmittedCommand, judgement: Judgement) -> None:
        """Note a sign command that was stored as judged."""
        command = submission.command
        assert isinstance(command, SignCommand)
        if judgement.state == _REJECTED:
            assert judgement.reason is not None
            self.refused.append(_refused(submission, _REJECTED, judgement.reason))
            self.rejected.add(submission.event_id)
        elif judgement.state == _PENDING:
            self.pending += 1
        else:
            self.changes.append(
                Change(
                    submission,
                    kind=_VERIFIED,
                    delta=1,
                    petition_id=command.petition_id,
                    signature_id=command.signature_id,
                    country=command.country,
                    signed_at=submission.moment,
                    occurred_at=submission.moment,
                )
            )

    def note_duplicate(self, submission: SubmittedCommand) -> None:
        """Note a sign command that was stored as a duplicate of another signature of its signer."""
        self.refused.append(_refused(submission, _DUPLICATE, Reason.ALREADY_SIGNED))

    def note_known(self, submission: SubmittedCommand, row: Any) -> None:
        """Note a sign command that is stored already, as `row` or in the ledger."""
        if row["in_ledger"]:
            self.replays.add(submission.event_id)  # even if its row was changed: what was counted is answered
        elif row["petition_id"] != submission.command.petition_id or (
            row["signer_key"] != submission.signer_key and row["erased_at"] is None  # an erased one has no signer
        ):
            self.contradictions[submission.event_id] = "its signature_id is stored for another signer or petition"
        else:
            self.replays.add(submission.event_id)
            if (
                row["state"] in (_DUPLICATE, _REJECTED) and row["reason"]
            ):  # without a reason the row was edited, and there is nothing to publish
                self.refused.append(
                    RefusedSignature(submission, SignatureState(row["state"]), row["reason"], row["submitted_at"])  # type: ignore[arg-type]
                )

    # -------------------------------------------------------------------------------------------------- other commands

    def note_change(self, submission: SubmittedCommand, row: Any) -> None:
        """Note a command that has changed a signature, now `row`; a change of the count goes to the ledger."""
        if row["state"] == _VERIFIED or row["state_before"] == _VERIFIED:
            self.changes.append(_change_of(submission, row))

    def note_unchanged(self, change: SubmittedCommand, row: Any, *, erased_here: Collection[UUID] = ()) -> None:
        """Note a command that changed nothing: a replay, a mismatch of signer or petition, or not applicable.

        Args:
            change: The command.
            row: The signature that it names; None if there is none.
            erased_here: Signatures that this round erased. Another command to erase one of them in the same round has
                another key, and was forged.
        """
        if row is None:
            self.unmatched[change.event_id] = UNKNOWN
        elif row["petition_id"] != change.command.petition_id:
            self.mismatched.append(Mismatch(change, "petition_id"))
        elif change.command.signature_id in erased_here or (
            row["erased_at"] is None and row["signer_key"] != change.signer_key
        ):
            self.mismatched.append(Mismatch(change, "signer_key"))
        elif isinstance(change.command, EraseCommand):
            self.replays.add(change.event_id)
        else:
            self.unmatched[change.event_id] = row["state"]

    # ----------------------------------------------------------------------------------------------------- the outcome

    def to_look_up(self) -> set[UUID]:
        """Commands that may be in the ledger already."""
        return self._unknown() | self.rejected

    def _unknown(self) -> set[UUID]:
        """Commands that changed nothing, and may be in the ledger."""
        if not (self.replays or self.unmatched or self.mismatched):  # nearly always
            return set()
        # A forged record may have the id of another one in this batch: what this batch decided is not a replay.
        decided = {change.submission.event_id for change in self.changes}
        self.unmatched = {event_id: state for event_id, state in self.unmatched.items() if event_id not in decided}
        return self.replays | self.unmatched.keys() | {one.submission.event_id for one in self.mismatched} - decided

    def refusals(
        self, batch: Sequence[SubmittedCommand], replayed: Iterable[LedgerRow], duplicates: Mapping[UUID, UUID]
    ) -> dict[int, str]:
        """Compare commands with the ledger's rows of their events.

        Args:
            batch: The commands.
            replayed: The rows.
            duplicates: Of the signatures that commands name, the duplicates, each with the original.

        Returns:
            By index in the batch, why a command cannot be applied: its ledger row or stored signature is of something else.
        """
        rows = {row.event_id: row for row in replayed}
        refused: dict[int, str] = {}
        for place, submission in enumerate(batch) if rows or self.contradictions else ():
            why = self.contradictions.get(submission.event_id)
            row = rows.get(submission.event_id)
            if row is not None and not _is_about(row, submission, duplicates):
                why = f"its event is in the ledger for something else: lane {row.lane}, position {row.position}"
            if why is not None:
                refused[place] = why
        return refused

    def decided(
        self, batch: Sequence[SubmittedCommand], new: list[LedgerRow], replayed: Sequence[LedgerRow]
    ) -> Decided:
        """The outcome of the batch.

        Args:
            batch: The commands.
            new: The rows that were appended to the ledger for it.
            replayed: The rows of its events that were in the ledger before.
        """
        if not replayed:  # nearly always
            return Decided(
                new,
                self.refused,
                self.pending,
                frozenset(self.replays),
                Counter(self.unmatched.values()),
                self.mismatched,
                self.erased,
            )
        # A row may be in another lane than the replayed command (it was sent again after partitions were added). That
        # lane's own reader publishes it, in the lane's order. Published here, it could overtake an earlier row, which the
        # readers' fences would then drop for ever.
        here = {(submission.event_id, submission.lane) for submission in batch}
        mine = new + [row for row in replayed if (row.event_id, row.lane) in here]
        ledger = sorted(mine, key=lambda row: (row.lane, row.position))
        known = self.replays | {row.event_id for row in replayed}
        mismatched = [one for one in self.mismatched if one.submission.event_id not in known]
        return Decided(
            ledger,
            self.refused,
            self.pending,
            frozenset(known),
            Counter(state for event_id, state in self.unmatched.items() if event_id not in known),
            mismatched,
            self.erased,
        )


def _refused(submission: SubmittedCommand, outcome: Refusal, reason: Reason) -> RefusedSignature:
    assert isinstance(submission.command, SignCommand)
    return RefusedSignature(submission, outcome, reason, submission.moment)


def _change_of(submission: SubmittedCommand, row: Any) -> Change:
    assert not isinstance(submission.command, SignCommand)
    return Change(
        submission,
        kind=row["state"],
        delta=1 if row["state"] == _VERIFIED else -1,
        petition_id=row["petition_id"],
        signature_id=row["signature_id"],
        country=row["country"],
        signed_at=row["submitted_at"],
        occurred_at=submission.moment,
    )


def _is_about(row: LedgerRow, submission: SubmittedCommand, duplicates: Mapping[UUID, UUID]) -> bool:
    command = submission.command
    named = command.signature_id
    if row.signature_id not in (named, duplicates.get(named)) or row.kind != CHANGES.get(type(command)):
        return False
    # The petition of a change comes from the stored signature, not from the command.
    return not isinstance(command, SignCommand) or row.petition_id == command.petition_id


# ------------------------------------------------------------------------------------------------------ repeated commands


def first_of_each(submissions: Sequence[SubmittedCommand]) -> list[SubmittedCommand]:
    """Drop repetitions of a command in the batch (clients' retries), and keep the first.

    Change commands of one id with different signers or petitions are all kept: a forged one must not replace the true one.
    """
    first: dict[UUID | tuple[UUID, UUID, str], SubmittedCommand] = {}
    for submission in submissions:
        known = first.setdefault(submission.event_id, submission)
        if known is submission or is_sign(submission):
            continue
        claims = submission.event_id, submission.signer_key, submission.command.petition_id
        if claims != (known.event_id, known.signer_key, known.command.petition_id):
            first.setdefault(claims, submission)
    return list(first.values())


def shared_ids(batch: Sequence[SubmittedCommand]) -> dict[int, str]:
    """Sign commands with the id of an earlier one of another signer or petition: by index, the reason for setting aside."""
    if len({submission.event_id for submission in batch}) == len(batch):  # nearly always
        return {}
    first: dict[UUID, SubmittedCommand] = {}
    refused: dict[int, str] = {}
    for place, submission in enumerate(batch):
        one = first.setdefault(submission.event_id, submission)
        if is_sign(submission) and (submission.signer_key, submission.command.petition_id) != (
            one.signer_key,
            one.command.petition_id,
        ):
            refused[place] = "its signature_id is that of an earlier command, of another signer or petition"
    return refused
