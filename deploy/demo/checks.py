"""Compares the observed with the expected outcome of the surge. Pure functions; every mismatch is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.demo.plan.petitions import DemoPetition
from deploy.demo.plan.submission import Outcome
from deploy.demo.plan.surge import Surge
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Observed
from deploy.demo.watching.topic_reader import Read

STORED: Final[tuple[Outcome, ...]] = ("verified", "duplicate", "rejected")
"""Outcomes that verify decides; they are states in PostgreSQL too."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison.

    Attributes:
        group: its heading in the report.
        name: what was counted.
        expected, got: the two figures.
        wrong: every mismatch; empty if there is none.
    """

    group: str
    name: str
    expected: int
    got: int
    wrong: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is no mismatch."""
        return self.expected == self.got and not self.wrong


def run_checks(surge: Surge, progress: Progress, observed: Observed) -> list[Check]:
    """Run all checks of the demo, in the order of the report."""
    return [
        *_counts(surge, observed),
        *_stored(surge, observed),
        *_refused(surge, progress),
        *_dead_letters(surge, observed),
        _balance(surge, progress, observed),
        *_milestones_and_mails(surge.petitions.all, observed),
        Check("proof", "drift between Redis and the ledger", 0, observed.drift, _drifts(observed)),
        Check("proof", "answers that no request should have had", 0, progress.surprised, tuple(progress.surprises)),
    ]


# ------------------------------------------------------------------------------------------------------------- counts


def _counts(surge: Surge, observed: Observed) -> Iterator[Check]:
    for petition in surge.petitions.open:
        verified = observed.outcomes[petition.petition_id, "verified", ""]
        tally = observed.tallies[petition.petition_id]
        wrong = () if tally == verified else (f"tally says {tally:,}, PostgreSQL {verified:,}",)
        yield Check("supporters", petition.petition_id, petition.supporters, tally, wrong)
    closed = surge.petitions.closed.petition_id
    yield Check("supporters", f"{closed} (closed)", 0, observed.tallies[closed])
    started = (
        ()
        if observed.petitions_started == len(surge.petitions.open)
        else (f"the organisation shows {observed.petitions_started} petitions, not {len(surge.petitions.open)}",)
    )
    yield Check(
        "supporters", "all, as the organisation shows", surge.petitions.supporters, observed.supporters, started
    )


# ----------------------------------------------------------------------------------------------------------- outcomes


def _stored(surge: Surge, observed: Observed) -> Iterator[Check]:
    expected = {key: number for key, number in surge.expectation.outcomes.items() if key[1] != "refused"}
    for outcome in STORED:
        reasons = sorted(
            {reason for keys in (expected, observed.outcomes) for _, state, reason in keys if state == outcome}
        )
        for reason in reasons:
            yield _by_petition(
                outcome,
                reason,
                {petition: number for (petition, *rest), number in expected.items() if rest == [outcome, reason]},
                {
                    petition: number
                    for (petition, *rest), number in observed.outcomes.items()
                    if rest == [outcome, reason]
                },
            )
    strange = {key: number for key, number in observed.outcomes.items() if key[1] not in STORED}
    if strange:
        yield Check("outcomes", "in a state that nobody asked for", 0, sum(strange.values()), tuple(map(str, strange)))


def _refused(surge: Surge, progress: Progress) -> Iterator[Check]:
    expected = {
        (petition, reason): number
        for (petition, outcome, reason), number in surge.expectation.outcomes.items()
        if outcome == "refused"
    }
    for reason in sorted({reason for keys in (expected, progress.refused) for _, reason in keys}):
        yield _by_petition(
            "refused",
            reason,
            {petition: number for (petition, this), number in expected.items() if this == reason},
            {petition: number for (petition, this), number in progress.refused.items() if this == reason},
        )


def _by_petition(outcome: str, reason: str, expected: Mapping[str, int], got: Mapping[str, int]) -> Check:
    wrong = tuple(
        f"{petition}: {got.get(petition, 0):,} instead of {expected.get(petition, 0):,}"
        for petition in sorted(expected.keys() | got.keys())
        if expected.get(petition, 0) != got.get(petition, 0)
    )
    name = f"{outcome}: {reason}" if reason else outcome
    return Check("outcomes", name, sum(expected.values()), sum(got.values()), wrong[:_MOST_NAMED])


def _dead_letters(surge: Surge, observed: Observed) -> Iterator[Check]:
    letters = _distinct(observed.dead_letters)
    got = Counter(letter.headers.get("dlq_reason", b"(none)").decode() for letter in letters)
    for reason in sorted(surge.expectation.dead_letters.keys() | got.keys()):
        yield Check("outcomes", f"dead-lettered: {reason}", surge.expectation.dead_letters.get(reason, 0), got[reason])
    sent = Counter((record.key, record.value) for record in surge.poison)
    kept = Counter((letter.key, letter.value) for letter in letters)
    yield Check("outcomes", "dead letters that are the record, untouched", sent.total(), (sent & kept).total())
    yield Check("outcomes", "dead letters of other topics", 0, observed.other_dead_letters)


def _distinct(letters: Sequence[Read]) -> list[Read]:
    """Return each dead letter once: after a crash one may be written again, with the same source coordinates."""
    places = [
        (letter.headers.get("dlq_source_partition"), letter.headers.get("dlq_source_offset")) for letter in letters
    ]
    return list(dict(zip(places, letters, strict=True)).values())


def outcome_totals(progress: Progress, observed: Observed) -> dict[str, int]:
    """Return the numbers of the five outcomes in the report."""
    totals: dict[str, int] = dict.fromkeys(STORED, 0)
    for (_, state, _), number in observed.outcomes.items():
        totals[state] = totals.get(state, 0) + number
    return {**totals, "refused": progress.refused.total(), "dead_lettered": len(_distinct(observed.dead_letters))}


def _balance(surge: Surge, progress: Progress, observed: Observed) -> Check:
    totals = outcome_totals(progress, observed)
    name = "all five together: everything that was sent"
    sent = progress.answered.total() + progress.poison
    wrong = () if sent == surge.expectation.sent else (f"{sent:,} were sent, not {surge.expectation.sent:,}",)
    return Check("outcomes", name, surge.expectation.sent, sum(totals.values()), wrong)


# ------------------------------------------------------------------------------------------------ milestones and mails


def _milestones_and_mails(petitions: Sequence[DemoPetition], observed: Observed) -> Iterator[Check]:
    expected = Counter(
        _label(petition.petition_id, threshold) for petition in petitions for threshold in petition.reached
    )
    announced = Counter({_label(*milestone): number for milestone, number in observed.milestones.items()})
    yield _each_once("milestones", "reached, each announced once", expected, announced)
    for petition in petitions:
        for target in petition.targets:
            wanted = Counter(_label(petition.petition_id, threshold) for threshold in petition.reached)
            received = [mail for mail in observed.mails if target.email in mail.to]
            named = Counter(_label(mail.petition_id, threshold) for mail in received for threshold in mail.milestones)
            yield _each_once("mails", f"to {target.email}", wanted, named)
    known = {target.email for petition in petitions for target in petition.targets}
    strangers = sorted({address for mail in observed.mails for address in mail.to} - known)
    yield Check("mails", "recipients that are no target", 0, len(strangers), tuple(strangers))
    most = sum(len(petition.reached) * len(petition.targets) for petition in petitions)
    burst = () if len(observed.mails) < most else ("a surge's milestones were not put together into one mail",)
    yield Check("mails", f"sent, instead of {most} with one for each", len(observed.mails), len(observed.mails), burst)


def _each_once(group: str, name: str, expected: Counter[str], got: Counter[str]) -> Check:
    wrong = [label for label in sorted(expected.keys() | got.keys()) if expected[label] != got[label]]
    texts = (f"{label}: {got[label]} times instead of {expected[label]}" for label in wrong[:_MOST_NAMED])
    return Check(group, name, expected.total(), got.total(), tuple(texts))


def _label(petition_id: str, threshold: int) -> str:
    return f"{petition_id} at {threshold:,}"


def _drifts(observed: Observed) -> tuple[str, ...]:
    return tuple(
        f"{found.petition_id}: count off by {found.drift}, {found.beyond} ledger rows not counted, {found.differences}"
        for found in observed.drifts
    )
