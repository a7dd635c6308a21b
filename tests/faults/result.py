"""The results of a run and of a campaign."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(slots=True)
class RunResult:
    """The result of one run.

    Attributes:
        signatures: the number of submissions that were answered with 202.
        faults: kinds that were played.
        not_played: kinds that found nothing to hit, each with the reason.
        recoveries: (kind, seconds until a signature sent at the fault's end was counted and all services were ready).
        violations: a sentence each. Empty: the run passed.
        lost, double, milestones_double: the three numbers that must be 0.
        mail_window: mails sent again with the same Message-ID because the SMTP server's answer was lost.
    """

    number: int
    signatures: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    not_played: list[tuple[str, str]] = field(default_factory=list)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lost: int = 0
    double: int = 0
    milestones_double: int = 0
    mail_window: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations and not (self.lost or self.double or self.milestones_double)


@dataclass(slots=True)
class CampaignResult:
    """The results of all runs of a campaign."""

    seed: int
    runs: list[RunResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there were runs and all passed."""
        return bool(self.runs) and all(run.ok for run in self.runs)

    @property
    def faults(self) -> Counter[str]:
        """How often each kind was played."""
        return sum((run.faults for run in self.runs), Counter())

    @property
    def not_played(self) -> Counter[str]:
        """How often each kind was planned and found nothing to hit."""
        return Counter(kind for run in self.runs for kind, _ in run.not_played)

    @property
    def recoveries(self) -> list[tuple[str, float]]:
        """All recoveries that were measured."""
        return [recovery for run in self.runs for recovery in run.recoveries]

    def total(self, name: str) -> int:
        """The sum of a number over the runs."""
        return sum(getattr(run, name) for run in self.runs)

    def as_json(self) -> str:
        """The last line of ``--json``."""
        seconds = [taken for _, taken in self.recoveries]
        summary: dict[str, Any] = {
            "ok": self.ok,
            "runs": len(self.runs),
            "signatures": self.total("signatures"),
            "faults": dict(sorted(self.faults.items())),
            "not_played": dict(sorted(self.not_played.items())),
            "lost": self.total("lost"),
            "double": self.total("double"),
            "milestones_double": self.total("milestones_double"),
            "mail_window": self.total("mail_window"),
            "recovery_seconds": {"p50": _rounded(seconds, median), "max": _rounded(seconds, max)},
            "seed": self.seed,
            "violations": {run.number: run.violations for run in self.runs if run.violations},
        }
        return json.dumps(summary)


def _rounded(seconds: Sequence[float], of: Any) -> float | None:
    return round(of(seconds), 2) if seconds else None
