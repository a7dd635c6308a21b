"""All counts agree, are complete, and never go back, wherever they are shown. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from tests.faults.judging.verdict import Verdict
from tests.faults.sending.expected import Sent
from tests.faults.watching.observed import Observed, Shown
from tests.faults.watching.seen import SeenSnapshot

_MAY_LEAVE_TWO_OWNERS: Final = ("tally", "kafka", "redis", "postgres", "clock")
"""Parts whose faults may leave a tally process that still publishes what it read while it owned a petition."""


def all_counts_agree(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    verified = Counter(row.petition_id for row in observed.stored.signatures if row.state == "verified")
    ledger: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    for row in observed.stored.ledger:
        ledger[row.petition_id] += row.delta
        changes[row.petition_id] += 1
    consumer: Counter[str] = Counter()
    for fact in observed.seen.facts.values():
        consumer[fact.petition_id] += fact.delta
    for petition_id in sent.petitions:
        views = {
            "ledger": ledger[petition_id],
            "an independent consumer": consumer[petition_id],
            "Redis": observed.counted.states[petition_id].count,
            "the last snapshot": _last(observed, petition_id).number,
            "the API": observed.shown[petition_id].number,
        }
        truth = verified[petition_id]
        different = [f"{name} has {number:,}" for name, number in views.items() if number != truth]
        verdict.found(f"counts of {petition_id} that differ from the {truth:,} verified signatures", different)
        verdict.lost += max(0, truth - min(views.values()))
        verdict.double += max(0, max(views.values()) - truth)
        revisions = {
            "Redis": observed.counted.states[petition_id].revision,
            "the last snapshot": _last(observed, petition_id).revision,
            "the API": observed.shown[petition_id].revision,
        }
        wrong = [f"{name} has {number:,}" for name, number in revisions.items() if number != changes[petition_id]]
        verdict.found(f"revisions of {petition_id} that are not its {changes[petition_id]:,} changes", wrong)


def _last(observed: Observed, petition_id: str) -> Shown:
    found = observed.seen.last_snapshot(petition_id)
    return Shown(0, 0, 0, 0) if found is None else Shown(found.revision, found.count, found.countries, found.minutes)


def _every_shown(observed: Observed) -> Iterator[tuple[str, Shown]]:
    """Every count of this run that was shown, with its place."""
    for (petition_id, _), snapshots in observed.seen.snapshots.items():
        for one in snapshots:
            yield f"snapshot of {petition_id}", Shown(one.revision, one.count, one.countries, one.minutes)
    for petition_id, shown in observed.shown.items():
        yield f"API of {petition_id}", shown


def counts_are_whole(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    everything = [*_every_shown(observed)]
    everything += [("stream", shown) for shown in observed.watched.streamed]
    everything += [("API", shown) for shown in observed.watched.asked]
    broken = [f"{where} {shown}" for where, shown in everything if not shown.number == shown.countries == shown.minutes]
    verdict.found("counts that their break-downs do not sum up to", broken)
    states = [
        petition_id
        for petition_id, state in observed.counted.states.items()
        if not state.count == sum(state.countries.values()) == sum(state.minutes.values())
    ]
    verdict.found("tallies in Redis that their break-downs do not sum up to", states)


def revisions_never_go_back(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    changes = Counter(row.petition_id for row in observed.stored.ledger)
    revoked = Counter(row.petition_id for row in observed.stored.ledger if row.delta < 0)
    stale = {}
    for (petition_id, partition), snapshots in observed.seen.snapshots.items():
        revisions = [snapshot.revision for snapshot in snapshots]
        stale[petition_id, partition] = _steps_back(revisions)
        impossible = [
            snapshot
            for snapshot in snapshots
            if not _can_be(snapshot, changes=changes[petition_id], revoked=revoked[petition_id])
        ]
        verdict.double += verdict.found(f"snapshots of {petition_id} that cannot be", impossible)
        if revisions and revisions[-1] != max(revisions):
            verdict.found(f"last snapshot of {petition_id} that is not its newest", [(revisions[-1], max(revisions))])
    if len({petition_id for petition_id, _ in stale}) < len(stale):
        verdict.found("petitions with snapshots in two partitions", list(stale))
    back = [f"{petition_id}: {step}" for (petition_id, _), steps in stale.items() for step in steps]
    # By design: an owner that was frozen, cut off or replaced may publish late what it had read before.
    if not sent.touched(*_MAY_LEAVE_TWO_OWNERS):
        verdict.found("older snapshots after newer ones", back)
    streamed = [shown.revision for shown in observed.watched.streamed]
    verdict.found("revisions that went back in a stream", _steps_back(streamed))
    verdict.found("revisions that came twice in a stream", [a for a, b in pairwise(streamed) if a == b])
    if not sent.touched("redis"):  # until it is healed, the API shows only what Redis and the last snapshot have
        verdict.found(
            "revisions that went back in the API", _steps_back([one.revision for one in observed.watched.asked])
        )


def _can_be(snapshot: SeenSnapshot, *, changes: int, revoked: int) -> bool:
    """Whether the first changes of the petition, as many as the revision says, add up to this."""
    downs, odd = divmod(snapshot.revision - snapshot.count, 2)
    return snapshot.revision <= changes and not odd and 0 <= downs <= revoked


def _steps_back(revisions: list[int]) -> list[tuple[int, int]]:
    return [(before, after) for before, after in pairwise(revisions) if after < before]


def the_audit_finds_nothing(_sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """The result of `groundswell audit`: the ledger proves each tally, and nothing is uncounted."""
    wrong = [str(found.as_json()) for found in observed.counted.audits if not found.right or found.beyond]
    verdict.found("petitions that the audit does not find right", wrong)
