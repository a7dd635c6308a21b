"""Deliveries: the mail about one milestone to one target, its id and its texts. No I/O."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from shared.contract.events import MilestoneReached, PetitionChanged, Target

_NAMESPACE: Final = UUID("0c8e6d0e-5c1f-5f0a-9a53-9d5c4be0f0a7")
"""Random, and never changed: another one would give every delivery a second id, and every mail a second Message-ID."""


NOT_SENT: Final = "not sent: "
"""The beginning of ``last_reply`` of a withheld delivery."""

NOT_DECIDED: Final = NOT_SENT + "tally has not decided this milestone"
NOT_ITS_ID: Final = NOT_SENT + "its id is not the one of its petition, threshold and target"
NO_TARGET: Final = NOT_SENT + "the petition does not address this target any more"
NO_MAIL: Final = NOT_SENT + "it is folded into a row that is no mail to its target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The e-mail about one milestone to one target, with everything that it says."""

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
    """The petition's count when the milestone was recorded: the threshold, or more if a surge passed it by."""
    reached_at: datetime


def one_line(text: str) -> str:
    """`text` on one line: control characters and line separators become spaces, and runs of spaces one space.

    A line break would end a mail header, and PostgreSQL does not accept NUL. Characters that change the direction of
    writing are removed: with them, a title could reverse the rest of our own sentence.
    """
    kept = (
        " " if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") else character
        for character in text
        if unicodedata.bidirectional(character) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )
    return " ".join("".join(kept).split())


def shorten(text: str, length: int) -> str:
    """`text`, cut after a word if it is longer than `length` characters."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    return (cut.rpartition(" ")[0] or cut).rstrip(" ,;:-") + "…"


def delivery_id(petition_id: str, threshold: int, target_id: str) -> UUID:
    """The id of a delivery, always the same for the same arguments (UUID version 5, RFC 9562 section 5.5).

    Neither id can contain a slash, so no two deliveries share a name.
    """
    return uuid5(_NAMESPACE, f"{petition_id}/{threshold}/{target_id}")


def message_id(delivery: UUID, domain: str) -> str:
    """The Message-ID of a delivery's mail: the same for all attempts, so that a target's server can detect a copy.

    Args:
        delivery: The delivery that became the mail.
        domain: The sender's domain, as A-labels.
    """
    return f"<{delivery}@{domain}>"


def address_of(target: Target) -> str:
    """The target's address for a row, in the form that ingest validates (`shared.contract.mail_address`).

    An invalid address stays invalid, and fails when it is to be sent: further cleaning could turn it into another person's.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that became a mail, claimed by one sender."""

    delivery: Delivery
    folded: tuple[int, ...]
    """The thresholds of the deliveries folded into it."""
    chosen_at: datetime
    """When it became a mail. From then on, its content, Message-ID and folded milestones do not change."""
    attempts: int
    deferred_for: timedelta
    """Time since a server first deferred it, by PostgreSQL's clock; zero if none has."""
    taken_over: bool
    """Another sender held it and did not finish: the mail may have been sent already."""

    @property
    def milestones(self) -> list[int]:
        """All thresholds that the mail names, rising."""
        return sorted({self.delivery.threshold, *self.folded})
