"""The load of an installation, and the assumptions about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from services.tally.settings import Settings as TallySettings

SNAPSHOT_INTERVAL_MS: Final = int(TallySettings.model_fields["snapshot_interval_ms"].default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What an installation must carry, and what is assumed about it.

    Attributes:
        rate: submissions per second, all for one petition: the worst case, since a petition has one writer.
        signatures: signatures that count, over all petitions, stored in PostgreSQL.
        viewers: open live streams, all on that one petition.
        duplicates: fraction of the submissions that does not count.
        utilisation: fraction of a core that may be busy at this rate. The rest is for peaks within a second, for garbage
            collection, and for catching up after a fault.
        replication: replicas of each Kafka partition.
        petitions: number of petitions that share the signatures, for what is stored per petition.
        days: days for which a petition receives signatures, for what is stored per minute.
        snapshot_interval_ms: the value of TALLY_SNAPSHOT_INTERVAL_MS.
        postgres_cores: cores of the one server that takes the writes.
    """

    rate: float
    signatures: int
    viewers: int = 0
    duplicates: float = 0.08
    utilisation: float = 0.6
    replication: int = 3
    petitions: int = 1
    days: float = 180.0
    snapshot_interval_ms: int = SNAPSHOT_INTERVAL_MS
    postgres_cores: int = 8

    def __post_init__(self) -> None:
        """Validate the numbers.

        Raises:
            ValueError: a number is out of range; the message says which and what it may be.
        """
        for field in fields(self):
            if not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} must be a number")
        for name in ("rate", "days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        for name in ("signatures", "replication", "petitions", "postgres_cores"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.viewers < 0:
            raise ValueError("viewers must be at least 0")
        if not 0 <= self.duplicates < 1:
            raise ValueError("duplicates must be at least 0 and below 1")
        if not 0 < self.utilisation <= 1:
            raise ValueError("utilisation must be above 0 and at most 1")
        if self.snapshot_interval_ms < 50:
            raise ValueError("snapshot_interval_ms must be at least 50, as TALLY_SNAPSHOT_INTERVAL_MS")

    @property
    def facts(self) -> float:
        """Submissions per second that count."""
        return self.rate * (1 - self.duplicates)

    @property
    def submissions(self) -> float:
        """All submissions that lead to `signatures`."""
        return self.signatures / (1 - self.duplicates)

    @property
    def updates(self) -> float:
        """Live updates per second of one petition: one per interval, and never more than there are changes."""
        return min(1000 / self.snapshot_interval_ms, self.facts)
