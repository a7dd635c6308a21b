"""What must hold after a run, whatever faults it had. Pure functions over what was sent and observed.

Every finding is a violation: a sentence with a number and a few examples. Only two repeats are allowed by design and just
counted: a mail with the same Message-ID (the SMTP window) and a milestone's event with the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from tests.faults.judging import check_counts, check_messages, check_outcomes
from tests.faults.judging.verdict import Verdict
from tests.faults.sending.expected import Sent
from tests.faults.sending.surge import Surge
from tests.faults.watching.observed import Observed

INVARIANTS: Final[tuple[Callable[[Sent, Observed, Verdict], None], ...]] = (
    check_outcomes.each_accepted_signature_has_one_outcome,
    check_outcomes.each_signer_counts_once,
    check_outcomes.the_ledger_has_each_standing_signature_once,
    check_outcomes.lanes_have_no_gaps,
    check_outcomes.the_topic_tells_the_ledger,
    check_outcomes.rejections_say_what_is_stored,
    check_counts.all_counts_agree,
    check_counts.counts_are_whole,
    check_counts.revisions_never_go_back,
    check_counts.the_audit_finds_nothing,
    check_messages.milestones_are_announced_once,
    check_messages.deliveries_are_finished,
    check_messages.milestones_are_mailed_once,
    check_messages.dead_letters_are_the_poison,
    check_messages.nothing_else_is_wrong,
)


def check(
    surge: Surge, observed: Observed, *, kinds: Collection[str] = (), touches: frozenset[str] = frozenset()
) -> Verdict:
    """Judge a run.

    Args:
        surge: what was sent.
        observed: the outcome.
        kinds: of the faults that were played.
        touches: what these affected.
    """
    return judge(Sent.of(surge, observed.direct, kinds=kinds, touches=touches), observed)


def judge(sent: Sent, observed: Observed) -> Verdict:
    """Apply every invariant."""
    verdict = Verdict()
    for invariant in INVARIANTS:
        invariant(sent, observed, verdict)
    return verdict
