"""Rules of the outbox: folding milestones into one mail, checks before sending, and retries. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from services.notify.deliveries import NOT_DECIDED, NOT_ITS_ID, Claim, delivery_id
from shared.runtime.backoff import Backoff, jittered

# ---------------------------------------------------------------------------------------------------------------- folding


@dataclass(frozen=True, slots=True)
class Open:
    """A delivery that is not a mail yet."""

    delivery_id: UUID
    petition_id: str
    target_id: str
    threshold: int


def fold(collected: Iterable[Open]) -> dict[UUID, list[UUID]]:
    """Fold the milestones of one surge: per petition and target one mail, about the highest, which names the others.

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


# -------------------------------------------------------------------------------------------------- checks before sending


@dataclass(frozen=True, slots=True)
class Withheld:
    """A delivery that is not sent, because its row fails a check. It is stored as failed, with `words`."""

    delivery_id: UUID
    petition_id: str
    target_id: str
    threshold: int
    words: str

    def named(self) -> dict[str, object]:
        """The fields for logs: ids, numbers and our own text."""
        return {
            "delivery_id": str(self.delivery_id),
            "petition_id": self.petition_id,
            "target_id": self.target_id,
            "milestones": [self.threshold],
            "reason": self.words,
        }


def withheld(row: Open, *, decided: bool) -> Withheld | None:
    """The reason to withhold a row; None if it is a decided milestone's delivery.

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
    """The result of a sender's claim."""

    mails: list[Claim]
    """The claimed mails; the longest due first."""
    withheld: list[Withheld]
    """Rows that this claim stored as failed."""


# ---------------------------------------------------------------------------------------------------------------- retries


@dataclass(frozen=True, slots=True)
class RetryRule:
    """When a deferred mail is retried, and when it is given up."""

    first: timedelta
    most: timedelta
    give_up_after: timedelta

    def delay(self, attempts: int, jitter: float) -> timedelta:
        """How long to wait after the `attempts`-th attempt (1, 2, …): doubling from `first` to `most`.

        Args:
            attempts: How often the mail has been tried.
            jitter: Random, from 0 to 1: scales the wait from half to all of it, so that mails that were deferred together
                are not retried together.
        """
        backoff = Backoff(self.first.total_seconds(), self.most.total_seconds())
        return timedelta(seconds=jittered(backoff.after(attempts), jitter))

    def gives_up(self, deferred_for: timedelta) -> bool:
        """Whether a mail that has been deferred for this long is given up."""
        return deferred_for >= self.give_up_after
