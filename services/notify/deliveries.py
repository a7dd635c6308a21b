"""The rules of deliveries: who gets a mail about what, what joins it, and what a server's answer means. No I/O."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final
from uuid import UUID, uuid5

from shared.contract.events import MilestoneReached, PetitionChanged, Target
from shared.runtime.backoff import Backoff, jittered

_NAMESPACE: Final = UUID("0c8e6d0e-5c1f-5f0a-9a53-9d5c4be0f0a7")
"""Ours, made once at random. Another one would give every delivery a second id, and every mail a second Message-ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One milestone's e-mail to one target, with all that the mail says."""

    delivery_id: UUID
    petition_id: str
    threshold: int
    target_id: str
    petition_title: str
    organisation_name: str
    target_name: str
    target_kind: str
    """``person`` or ``body``."""
    email: str
    count: int
    """The petition's count when the milestone was recorded: the threshold, or more when a surge leapt over it."""
    reached_at: datetime


def one_line(text: str) -> str:
    """`text` on one line: control characters and line separators become spaces, runs of spaces one.

    A line break would end a mail header, and PostgreSQL takes no NUL. Characters that turn the direction of writing are
    taken out: with them, a title could make what follows it in our own sentence read backwards.
    """
    kept = (
        " " if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") else character
        for character in text
        if unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )
    return " ".join("".join(kept).split())


def shorten(text: str, length: int) -> str:
    """`text`, cut at a word where it is longer than `length` characters."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    return (cut.rpartition(" ")[0] or cut).rstrip(" ,;:-") + "…"


def delivery_id(petition_id: str, threshold: int, target_id: str) -> UUID:
    """The one id of this delivery, whoever computes it and when (UUID version 5, RFC 9562 section 5.5).

    Neither id can hold a slash, so no two deliveries share a name.
    """
    return uuid5(_NAMESPACE, f"{petition_id}/{threshold}/{target_id}")


def message_id(delivery: UUID, domain: str) -> str:
    """The Message-ID of the mail about a delivery: the same for every attempt, so that a target's server can see a copy.

    Args:
        delivery: The delivery that became the mail.
        domain: The sender's domain, as A-labels.
    """
    return f"<{delivery}@{domain}>"


def address_of(target: Target) -> str:
    """The target's address as a row holds it: in the form that ingest checked (`shared.contract.mail_address`).

    What is no address stays none, and fails when it is to be sent: more cleaning could make somebody else's of it.
    """
    return target.email.replace("\0", "\N{REPLACEMENT CHARACTER}")


def deliveries_for(milestone: MilestoneReached, petition: PetitionChanged) -> list[Delivery]:
    """One delivery to each target of the petition."""
    return [
        Delivery(
            delivery_id=delivery_id(milestone.petition_id, milestone.threshold, target.target_id),
            petition_id=milestone.petition_id,
            threshold=milestone.threshold,
            target_id=target.target_id,
            petition_title=one_line(petition.title) or petition.petition_id,
            organisation_name=one_line(petition.organisation.name) or petition.organisation.slug,
            target_name=one_line(target.name) or target.target_id,
            target_kind=target.kind,
            email=address_of(target),
            count=milestone.count,
            reached_at=milestone.reached_at,
        )
        for target in petition.targets
    ]


# ------------------------------------------------------------------------------------------------- one mail, not a burst


@dataclass(frozen=True, slots=True)
class Open:
    """A delivery that is not a mail yet."""

    delivery_id: UUID
    petition_id: str
    target_id: str
    threshold: int


def fold(collected: Iterable[Open]) -> dict[UUID, list[UUID]]:
    """What one surge's milestones become: per petition and target one mail, about the highest, which names the others.

    Returns:
        For each delivery that becomes a mail, the deliveries folded into it.
    """
    groups: dict[tuple[str, str], list[Open]] = {}
    for item in collected:
        groups.setdefault((item.petition_id, item.target_id), []).append(item)
    mails = {}
    for group in groups.values():
        highest, *others = sorted(group, key=lambda item: item.threshold, reverse=True)
        mails[highest.delivery_id] = [other.delivery_id for other in others]
    return mails


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that became a mail, in the hands of one sender."""

    delivery: Delivery
    folded: tuple[int, ...]
    """Thresholds of the deliveries folded into it."""
    chosen_at: datetime
    """When it became a mail. From then on mail, Message-ID and folded milestones stay as they are."""
    attempts: int
    deferred_for: timedelta
    """How long ago a server first put it off, by PostgreSQL's clock; zero when none has."""
    taken_over: bool
    """Another sender held it and did not finish: the mail may have gone out already."""

    @property
    def milestones(self) -> list[int]:
        """All thresholds that the mail names, rising."""
        return sorted({self.delivery.threshold, *self.folded})


# ---------------------------------------------------------------------------------------------- what may leave the house

NOT_SENT: Final = "not sent: "
"""Begins the last words of a delivery that was withheld."""

NOT_DECIDED: Final = NOT_SENT + "tally has not decided this milestone"
NOT_ITS_ID: Final = NOT_SENT + "its id is not the one of its petition, threshold and target"
NO_TARGET: Final = NOT_SENT + "the petition does not address this target any more"
NO_MAIL: Final = NOT_SENT + "it is folded into a row that is no mail to its target"


@dataclass(frozen=True, slots=True)
class Withheld:
    """A delivery that is not sent, because it is not what it says. It is stored as failed, with `words`."""

    delivery_id: UUID
    petition_id: str
    target_id: str
    threshold: int
    words: str

    def named(self) -> dict[str, object]:
        """What a log line says of it: ids, numbers and our own words."""
        return {
            "delivery_id": str(self.delivery_id),
            "petition_id": self.petition_id,
            "target_id": self.target_id,
            "milestones": [self.threshold],
            "reason": self.words,
        }


def withheld(row: Open, *, decided: bool) -> Withheld | None:
    """What bars a row from being mailed; None when it is a milestone's delivery.

    Args:
        row: The delivery.
        decided: Whether tally decided that its petition reached its threshold.
    """
    words = None
    if not decided:
        words = NOT_DECIDED
    elif row.delivery_id != delivery_id(row.petition_id, row.threshold, row.target_id):
        words = NOT_ITS_ID
    return None if words is None else Withheld(row.delivery_id, row.petition_id, row.target_id, row.threshold, words)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a sender found when it claimed mails."""

    mails: list[Claim]
    """In its hands now; the longest due first."""
    withheld: list[Withheld]
    """Stored as failed by this claim."""


# --------------------------------------------------------------------------------------------------- what an answer means


class Stage(Enum):
    """Which command of the mail transaction was answered."""

    SENDER = "MAIL FROM"
    RECIPIENT = "RCPT TO"
    CONTENT = "DATA"


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to a mail: the last one, at the stage where it ended."""

    stage: Stage
    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text} ({self.stage.value})"


class Verdict(Enum):
    """What becomes of a mail after a server's answer."""

    SENT = "sent"
    DEFERRED = "deferred"
    """Try this mail again later."""
    REFUSED = "refused"
    """Never try it again."""
    NOT_OURS = "server refuses us"
    """The server takes nothing from us. No fault of this mail or its target: all wait until that is put right."""


def verdict(reply: Reply) -> Verdict:
    """Read a reply by its first digit (RFC 5321 section 4.2.1), with two exceptions.

    A permanent refusal of the *sender*, and 530 (authentication required, RFC 4954 section 6) anywhere, are about this
    installation's account at its relay. Failing every delivery for a wrong password would lose them all.
    """
    if 200 <= reply.code < 300:
        return Verdict.SENT
    if reply.code == 530 or (reply.code >= 500 and reply.stage is Stage.SENDER):
        return Verdict.NOT_OURS
    if reply.code >= 500:
        return Verdict.REFUSED
    return Verdict.DEFERRED  # 4xx, and answers that are no SMTP: the next one may be


@dataclass(frozen=True, slots=True)
class RetryRule:
    """When a mail that was put off is tried again, and until when."""

    first: timedelta
    most: timedelta
    give_up_after: timedelta

    def delay(self, attempts: int, jitter: float) -> timedelta:
        """How long to wait after the `attempts`-th attempt (1, 2, …): doubling from `first` to `most`.

        Args:
            attempts: How often the mail has been tried.
            jitter: From 0 to 1, at random: the wait is that far between half and all of it, so that mails that were put
                off together do not come back together.
        """
        backoff = Backoff(self.first.total_seconds(), self.most.total_seconds())
        return timedelta(seconds=jittered(backoff.after(attempts), jitter))

    def gives_up(self, deferred_for: timedelta) -> bool:
        """Whether a mail that has been put off for this long is put off for the last time."""
        return deferred_for >= self.give_up_after
