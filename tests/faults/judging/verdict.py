"""The findings of the checks of a run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

MOST_EXAMPLES: Final = 5


@dataclass(slots=True)
class Verdict:
    """The findings.

    Attributes:
        violations: a sentence each.
        lost: accepted signatures without an outcome, signers of whose accepted signatures none stands, and verified
            signatures that some count does not include.
        double: signers of whom two signatures stand, signatures with two outcomes, facts with two positions or two
            contents, and signatures that some count has too many.
        milestones_double: milestones that were announced as two events, or mailed to a target as two mails.
        mail_window: repeated mails with the same Message-ID: the documented window of SMTP.
        milestone_repeats: repeated milestone events with the same event id.
    """

    violations: list[str] = field(default_factory=list)
    lost: int = 0
    double: int = 0
    milestones_double: int = 0
    mail_window: int = 0
    milestone_repeats: int = 0

    def found(self, what: str, examples: Collection[object]) -> int:
        """Record a violation if there are examples of it; returns their number."""
        if examples:
            some = ", ".join(map(str, sorted(examples, key=str)[:MOST_EXAMPLES]))
            self.violations.append(f"{what}: {len(examples):,} ({some})")
        return len(examples)
