"""Observations of the system from outside. `watch` collects them, `checks` compares them with the expected ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.demo.watching.topic_reader import Read

Outcomes = Counter[tuple[str, str, str]]
"""How many signatures PostgreSQL has, by (petition id, state, reason); a reason that is NULL is empty here."""


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A mail of the mailbox, as far as it matters here."""

    to: tuple[str, ...]
    petition_id: str
    milestones: tuple[int, ...]
    """The milestones that the mail names in its header ``X-Groundswell-Milestones``."""


@dataclass(frozen=True, slots=True)
class PetitionDrift:
    """An audited petition whose live count the ledger does not prove, or not completely."""

    petition_id: str
    drift: int
    beyond: int
    """Ledger rows that are not counted yet; there should be none when all is quiet."""
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The whole system at one moment, after it has become quiet."""

    outcomes: Outcomes
    tallies: Mapping[str, int]
    """The count of each petition, as tally's API tells it."""
    supporters: int
    """The sum that the organisation's page shows."""
    petitions_started: int
    dead_letters: Sequence[Read]
    """Dead letters of ``signatures.submitted``."""
    other_dead_letters: int
    """Dead letters of all other topics; there is no reason for any."""
    milestones: Counter[tuple[str, int]]
    """How often each (petition id, threshold) was announced."""
    mails: Sequence[ReceivedMail]
    drifts: Sequence[PetitionDrift]
    """Petitions of which the audit found anything but perfect agreement."""

    @property
    def drift(self) -> int:
        """The sum of all deviations between Redis and the ledger: 0 when the count is proved."""
        return sum(abs(found.drift) + found.beyond + len(found.differences) for found in self.drifts)
