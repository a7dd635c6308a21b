"""Every accepted signature has one outcome, in PostgreSQL, in the ledger and on the topics. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from tests.faults.judging.verdict import Verdict
from tests.faults.sending.expected import Sent
from tests.faults.watching.observed import Observed


def each_accepted_signature_has_one_outcome(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    stored = {row.signature_id: row for row in observed.stored.signatures}
    lost = [signature_id for signature_id in sent.accepted if signature_id not in stored]
    verdict.lost += verdict.found("accepted signatures without an outcome", lost)
    twice = _twice(row.signature_id for row in observed.stored.signatures)
    verdict.double += verdict.found("signatures stored twice", twice)

    # On the topic but without an answer, because ingest was killed first. These have outcomes too; nothing else has.
    known = sent.accepted.keys() | _commands_on_topic(observed)
    verdict.found("stored signatures that nobody sent", stored.keys() - known)
    unanswered = [signature_id for signature_id in _commands_on_topic(observed) if signature_id not in stored]
    verdict.found("signatures on the topic without an outcome", unanswered)
    missing = sent.accepted.keys() - observed.seen.commands.keys()
    verdict.lost += verdict.found("accepted signatures that are not on signatures.submitted", missing)
    misplaced = [
        f"{signature_id} of {row.petition_id}"
        for signature_id, row in stored.items()
        if signature_id in sent.accepted and sent.accepted[signature_id].petition_id != row.petition_id
    ]
    verdict.found("signatures stored for another petition", misplaced)


def _commands_on_topic(observed: Observed) -> set[str]:
    planted = observed.planted
    return {
        signature_id
        for signature_id, places in observed.seen.commands.items()
        if any(place not in planted for place in places)
    }


def each_signer_counts_once(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    stood = _stood(observed)
    by_key = Counter(
        (row.petition_id, row.signer_key) for row in observed.stored.signatures if row.signature_id in stood
    )
    verdict.double += verdict.found(
        "signer keys with two signatures that count", [key for key, number in by_key.items() if number > 1]
    )
    lost, double = [], []
    for signer, signatures in sent.signatures_of_signers().items():
        standing = sum(signature_id in stood for signature_id in signatures)
        if standing == 0:
            lost.append(signer)
        elif standing > 1:
            double.append(signer)
    verdict.lost += verdict.found("signers of whose accepted signatures none counts", lost)
    verdict.double += verdict.found("signers of whose accepted signatures several count", double)
    wrong = [
        signature_id
        for signature_id, accepted in sent.accepted.items()
        if (accepted.petition_id, accepted.signer) in sent.turned_away and signature_id in stood
    ]
    verdict.double += verdict.found("signatures that count against their petition's policy", wrong)
    states = {row.signature_id: row.state for row in observed.stored.signatures}
    left = [signature_id for signature_id in sent.withdrawn if states.get(signature_id) != "withdrawn"]
    verdict.found("withdrawn signatures that are not withdrawn", left)
    strange = [
        row for row in observed.stored.signatures if row.state == "withdrawn" and row.signature_id not in sent.withdrawn
    ]
    verdict.lost += verdict.found("signatures that nobody withdrew", strange)


def _stood(observed: Observed) -> set[str]:
    """Signatures that count, or counted until they were withdrawn."""
    return {row.signature_id for row in observed.stored.signatures if row.state in ("verified", "withdrawn")}


# -------------------------------------------------------------------------------------------------- ledger and facts


def the_ledger_has_each_standing_signature_once(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    plus = Counter(row.signature_id for row in observed.stored.ledger if row.delta > 0)
    minus = Counter(row.signature_id for row in observed.stored.ledger if row.delta < 0)
    stood = _stood(observed)
    verdict.lost += verdict.found("verified signatures that the ledger does not have", stood - plus.keys())
    verdict.double += verdict.found("ledger rows of signatures that do not count", plus.keys() - stood)
    verdict.double += verdict.found(
        "signatures that the ledger has twice", [name for both in (plus, minus) for name, n in both.items() if n > 1]
    )
    withdrawn = {row.signature_id for row in observed.stored.signatures if row.state == "withdrawn"}
    verdict.double += verdict.found("withdrawals that the ledger does not have", withdrawn - minus.keys())
    verdict.lost += verdict.found("ledger rows of withdrawals that nobody asked for", minus.keys() - withdrawn)
    others = [
        f"{row.signature_id} by {row.event_id}"
        for row in observed.stored.ledger
        if row.delta < 0 and sent.withdrawn.get(row.signature_id, row.event_id) != row.event_id
    ]
    verdict.double += verdict.found("withdrawals by another command than the one that was given", others)
    events = _twice(row.event_id for row in observed.stored.ledger)
    verdict.double += verdict.found("events at two positions of the ledger", events)


def lanes_have_no_gaps(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    gaps = [
        f"lane {number}: {lane.rows:,} rows, {lane.first} to {lane.last:,}"
        for number, lane in observed.stored.lanes.items()
        if lane.last != lane.rows + sum(last - first + 1 for first, last in lane.gaps)
    ]
    gaps += [
        f"lane {number}: no rows {first:,} to {last:,}"
        for number, lane in observed.stored.lanes.items()
        for first, last in lane.gaps
        if not _made_by_hand(observed, number, first, last)
    ]
    verdict.lost += verdict.found("lanes of the ledger with gaps", gaps)


def _made_by_hand(observed: Observed, lane: int, first: int, last: int) -> bool:
    """Whether a fault moved the row after the gap there, or deleted every row that was in the gap."""
    spoiled = observed.spoiled
    return (lane, last + 1) in spoiled.leapt or all(
        (lane, position) in spoiled.removed for position in range(first, last + 1)
    )


def the_topic_tells_the_ledger(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """What an independent consumer sees: every (lane, position) once, all of them, and nothing else."""
    ledger = {(row.lane, row.position): row for row in observed.stored.ledger}
    facts = observed.seen.facts
    verdict.lost += verdict.found("ledger rows that signatures.verified does not tell", ledger.keys() - facts.keys())
    verdict.double += verdict.found("facts that the ledger does not have", facts.keys() - ledger.keys())
    different = [
        place
        for place, fact in facts.items()
        if place in ledger
        and (fact.event_id, fact.petition_id, fact.signature_id, fact.delta, fact.country)
        != (
            ledger[place].event_id,
            ledger[place].petition_id,
            ledger[place].signature_id,
            ledger[place].delta,
            ledger[place].country,
        )
    ]
    verdict.double += verdict.found("facts that say something else than the ledger", different)
    verdict.double += verdict.found("facts of earlier runs that the ledger does not have", observed.strange_facts)
    positions: defaultdict[int, set[int]] = defaultdict(set)
    for lane, position in facts:
        positions[lane].add(position)
    gaps = []
    for lane, last in {number: lane.last for number, lane in observed.stored.lanes.items()}.items():
        before = observed.lanes_before[lane].last if lane in observed.lanes_before else 0
        missing = _with_rows(before + 1, last, observed.stored.lanes[lane].gaps) - positions[lane]
        # Those in the ledger, and those in gaps, were counted above.
        gaps += [
            (lane, position)
            for position in missing
            if (lane, position) not in ledger and (lane, position) not in observed.stored.sacrificed
        ]
    verdict.lost += verdict.found("positions of this run that no petition of it has", gaps)
    for what, examples in observed.seen.contradictions.items():
        verdict.double += verdict.found(f"on the topics: {what}", examples)


def _with_rows(first: int, last: int, gaps: Iterable[tuple[int, int]]) -> set[int]:
    """The positions from `first` to `last` that are in none of the gaps, which are in rising order."""
    found: set[int] = set()
    for gap_first, gap_last in sorted(gaps):
        found.update(range(first, min(last + 1, gap_first)))
        first = max(first, gap_last + 1)
    return found | set(range(first, last + 1))


def rejections_say_what_is_stored(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    refused = {row.signature_id: row for row in observed.stored.signatures if row.state in ("duplicate", "rejected")}
    told = observed.seen.rejections
    verdict.lost += verdict.found("refusals that signatures.rejected does not tell", refused.keys() - told.keys())
    verdict.double += verdict.found("signatures told as refused that are not", told.keys() - refused.keys())
    different = [
        signature_id
        for signature_id in refused.keys() & told.keys()
        if (refused[signature_id].state, refused[signature_id].reason)
        != (told[signature_id].outcome, told[signature_id].reason)
    ]
    verdict.found("refusals told with another reason than the stored one", different)
    counted = {fact.signature_id for fact in observed.seen.facts.values()}
    verdict.double += verdict.found("signatures told as counted and as refused", counted & told.keys())


def _twice(values: Iterable[str]) -> list[str]:
    return [value for value, number in Counter(values).items() if number > 1]
