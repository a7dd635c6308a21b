"""A small run without violations, as a complete `Sent` and `Observed`, for tests that then break one thing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.tally.counting.audit import PetitionAudit
from services.tally.counting.tally import TallyState
from tests.faults.breaking.smtp_sink import Mail
from tests.faults.notes import Place, Planted
from tests.faults.sending.expected import Sent, SentPetition
from tests.faults.sending.surge import Accepted
from tests.faults.watching.observed import Observed, Shown, Watched
from tests.faults.watching.seen import (
    DeadLetter,
    Seen,
    SeenFact,
    SeenMilestone,
    SeenRejection,
    SeenSnapshot,
)
from tests.faults.watching.stores import (
    Counted,
    Lane,
    Stored,
    StoredChange,
    StoredDelivery,
    StoredMilestone,
    StoredSignature,
)

HOT, SIDE = "run001-hot", "run001-side"
COUNCIL = "council@run001-hot.test"
POISON: Place = ("signatures.submitted.v1", 0, 7)
BEFORE = 100
"""Positions of lane 0 that an earlier run has."""


@dataclass(slots=True)
class Perfect:
    """A run that a test may change before it is judged.

    Hot: five signers, one of them twice; the milestone of 3 was reached. Side: three signers, two of whom
    withdrew, the last one by the id of a duplicate. One record is poison.
    """

    accepted: dict[str, Accepted] = field(default_factory=dict)
    signatures: list[StoredSignature] = field(default_factory=list)
    ledger: list[StoredChange] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    milestones: list[StoredMilestone] = field(default_factory=list)
    deliveries: list[StoredDelivery] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    states: dict[str, TallyState] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    watched: Watched = field(default_factory=Watched)
    planted: dict[Place, Planted] = field(default_factory=dict)
    audits: list[PetitionAudit] = field(default_factory=list)
    lanes: dict[int, Lane] = field(default_factory=dict)
    strange: list[tuple[int, int]] = field(default_factory=list)
    withdrawn: dict[str, str] = field(default_factory=dict)
    turned_away: set[tuple[str, int]] = field(default_factory=set)
    not_ready: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    touches: frozenset[str] = frozenset()
    waiting: int = 0

    def sent(self) -> Sent:
        """What was sent."""
        return Sent(
            petitions={HOT: SentPetition((3, 500), (("council", COUNCIL),)), SIDE: SentPetition()},
            accepted=self.accepted,
            turned_away=frozenset(self.turned_away),
            withdrawn=self.withdrawn,
            touches=self.touches,
        )

    def observed(self) -> Observed:
        """What came of it."""
        return Observed(
            seen=self.seen,
            stored=Stored(
                tuple(self.signatures),
                tuple(self.ledger),
                self.lanes,
                tuple(self.milestones),
                tuple(self.deliveries),
                self.waiting,
            ),
            lanes_before={0: Lane(BEFORE, 1, BEFORE)},
            strange_facts=self.strange,
            counted=Counted(self.states, tuple(self.audits)),
            shown=self.shown,
            watched=self.watched,
            mails=self.mails,
            planted=self.planted,
            planted_before={},
            direct={},
            not_ready=self.not_ready,
            leaks=self.leaks,
        )


def perfect() -> Perfect:
    """A new copy of the run."""
    run = Perfect()
    for signer in range(5):
        _signs(run, HOT, signer, "verified")
    _signs(run, HOT, 0, "duplicate", again=True)
    for signer in range(3):
        _signs(run, SIDE, signer, "verified")
    _signs(run, SIDE, 2, "duplicate", again=True)
    _withdraws(run, f"{SIDE}/1")
    _withdraws(run, f"{SIDE}/2", named=f"{SIDE}/2/again")
    run.seen.snapshots = {
        (HOT, 0): [SeenSnapshot(0, 2, 2, 2, 2), SeenSnapshot(5, 5, 5, 5, 5)],
        (SIDE, 1): [SeenSnapshot(0, 3, 3, 3, 3), SeenSnapshot(1, 1, 5, 1, 1)],
    }
    run.states = {
        HOT: TallyState(5, 5, {0: BEFORE + 5}, {"NL": 5}, {29400000: 5}),
        SIDE: TallyState(1, 5, {0: BEFORE + 10}, {"NL": 1}, {29400000: 1}),
    }
    run.audits = [PetitionAudit(name, state.count, state.count, 0, ()) for name, state in run.states.items()]
    run.shown = {HOT: Shown(5, 5, 5, 5), SIDE: Shown(5, 1, 1, 1)}
    run.watched = Watched([Shown(2, 2, 2, 2), Shown(5, 5, 5, 5)], [Shown(0, 0, 0, 0), Shown(5, 5, 5, 5)], 1)
    run.lanes = {0: Lane(BEFORE + 10, 1, BEFORE + 10)}
    run.seen.milestones = [SeenMilestone("event-3", HOT, 3, 3, 3)]
    run.milestones = [StoredMilestone(HOT, 3, 3, announced=True)]
    run.deliveries = [delivery()]
    run.mails = [mail()]
    run.planted = {POISON: Planted("schema", "abc")}
    run.seen.dead_letters = [letter()]
    return run


def delivery(*, threshold: int = 3, state: str = "sent", target: str = "council") -> StoredDelivery:
    """A row of ``deliveries``."""
    return StoredDelivery(f"delivery-{threshold}", HOT, threshold, target, COUNCIL, state, None, 1, 0, "250 OK")


def mail(
    *,
    message_id: str = "<delivery-3@test>",
    digest: str = "same",
    answer: int | None = 250,
    recipient: str = COUNCIL,
    milestones: tuple[int, ...] = (3,),
) -> Mail:
    """A mail about the milestone."""
    moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
    return Mail(
        message_id=message_id,
        recipient=recipient,
        petition_id=HOT,
        milestones=milestones,
        at=moment,
        digest=digest,
        answer=answer,
    )


def letter(*, source: Place = POISON, reason: str = "schema", digest: str = "abc", omitted: bool = False) -> DeadLetter:
    """The poison's dead letter."""
    return DeadLetter(f"{source[0]}.dlq", source, reason, digest, omitted)


def _signs(run: Perfect, petition_id: str, signer: int, state: str, *, again: bool = False) -> None:
    signature_id = f"{petition_id}/{signer}" + ("/again" if again else "")
    run.accepted[signature_id] = Accepted(petition_id, signer)
    reason = "already_signed" if state == "duplicate" else None
    run.signatures.append(StoredSignature(signature_id, petition_id, f"key-{petition_id}-{signer}", state, reason))
    run.seen.commands[signature_id] = [("signatures.submitted.v1", 1, len(run.accepted))]
    run.seen.decided.add(signature_id)
    if state == "verified":
        _changes(run, petition_id, signature_id, +1, event_id=signature_id)
    else:
        run.seen.rejections[signature_id] = SeenRejection(petition_id, f"{signature_id}/no", state, reason or "")


def _withdraws(run: Perfect, signature_id: str, *, named: str | None = None) -> None:
    """Withdrawn by a command that names the signature, or a duplicate of it."""
    event_id = run.withdrawn[signature_id] = f"{named or signature_id}/withdrawn"
    place = next(place for place, row in enumerate(run.signatures) if row.signature_id == signature_id)
    row = run.signatures[place]
    run.signatures[place] = row._replace(state="withdrawn")
    _changes(run, row.petition_id, signature_id, -1, event_id=event_id)


def _changes(run: Perfect, petition_id: str, signature_id: str, delta: int, *, event_id: str) -> None:
    position = BEFORE + len(run.ledger) + 1
    run.ledger.append(StoredChange(0, position, event_id, petition_id, signature_id, delta, "NL"))
    run.seen.facts[0, position] = SeenFact(petition_id, event_id, signature_id, 0, position, delta, "NL")
