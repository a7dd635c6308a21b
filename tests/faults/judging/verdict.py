"""What the checks of a run found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

MOST_EXAMPLES: Final = 5


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        violations: what should not be, a sentence each.
        lost: accepted signatures without an outcome, signers of whose accepted signatures none stands, and verified
            signatures that some count leaves out.
        double: signers of whom two signatures stand, signatures with two outcomes, facts with two positions or told in
            two ways, and what some count has too many.
        milestones_double: milestones that were announced as two events, or mailed to a target as two mails.
        mail_window: mails that came again with the same Message-ID: the documented window of SMTP.
        milestone_repeats: milestone events that came again with the same event id.
    """

    violations: list[str] = field(default_factory=list)
    lost: int = 0
    double: int = 0
    milestones_double: int = 0
    mail_window: int = 0
    milestone_repeats: int = 0

    def found(self, what: str, examples: Collection[object]) -> int:
        """Note a violation if there are examples of it; returns how many."""
        if examples:
            some = ", ".join(map(str, sorted(examples, key=str)[:MOST_EXAMPLES]))
            self.violations.append(f"{what}: {len(examples):,} ({some})")
        return len(examples)
