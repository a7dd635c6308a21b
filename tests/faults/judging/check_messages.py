"""Milestones, mails and dead letters: each once. Pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

from shared.contract.topics import SIGNATURES_SUBMITTED
from tests.faults.breaking.smtp_sink import Mail
from tests.faults.judging.verdict import Verdict
from tests.faults.sending.expected import Sent
from tests.faults.watching.observed import Observed
from tests.faults.watching.seen import DeadLetter, SeenMilestone

_REPEATS_MILESTONES: Final = ("tally", "kafka", "redis", "postgres", "clock")
"""If one of these fails between Kafka's acknowledgement and the mark in PostgreSQL, the same event may be published again."""

_REPEATS_MAILS: Final = ("notify", "smtp", "postgres", "clock")
"""If one of these fails between the server's 250 and the mark in PostgreSQL, the same mail may be sent again."""

_REPEATS_DEAD_LETTERS: Final = ("verify", "kafka", "postgres", "clock")
"""A batch that is processed again writes its dead letters again, if one of these fails."""

Milestone = tuple[str, int]


def milestones_are_announced_once(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """Each (petition, milestone) that was reached has one event, and no other has."""
    events: defaultdict[Milestone, list[SeenMilestone]] = defaultdict(list)
    for found in observed.seen.milestones:
        events[found.petition_id, found.threshold].append(found)
    double = {name: ids for name, found in events.items() if len(ids := {one.event_id for one in found}) > 1}
    verdict.milestones_double += verdict.found("milestones announced as several events", double.items())
    verdict.found(
        "milestones told with different numbers",
        [name for name, found in events.items() if len({(one.count, one.revision) for one in found}) > 1],
    )
    repeats = [name for name, found in events.items() for _ in found[1:]]
    verdict.milestone_repeats = len(repeats)
    if not sent.touched(*_REPEATS_MILESTONES):
        verdict.found("milestones announced again although nothing failed", repeats)

    ups = Counter(row.petition_id for row in observed.stored.ledger if row.delta > 0)
    standing: Counter[str] = Counter()
    for row in observed.stored.ledger:
        standing[row.petition_id] += row.delta
    wanted = {(name, threshold) for name, petition in sent.petitions.items() for threshold in petition.milestones}
    reached = {(name, threshold) for name, threshold in wanted if threshold <= standing[name]}
    verdict.lost += verdict.found("milestones that were reached and not announced", reached - events.keys())
    verdict.found("milestones that no petition has", events.keys() - wanted)
    wrong = [
        one
        for (name, threshold), found in events.items()
        for one in found
        if one.count < threshold or one.count > ups[name]
    ]
    verdict.found("milestones announced with a count that cannot be", wrong)
    stored = {(row.petition_id, row.threshold): row for row in observed.stored.milestones}
    verdict.found("milestones announced and not recorded", events.keys() - stored.keys())
    verdict.found("milestones never marked as announced", [name for name, row in stored.items() if not row.announced])


def deliveries_are_finished(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """Each announced milestone has one delivery to each target, and each delivery is finished."""
    rows = Counter((row.petition_id, row.threshold, row.target_id) for row in observed.stored.deliveries)
    wanted = {
        (found.petition_id, found.threshold, target)
        for found in observed.seen.milestones
        for target, _ in _targets(sent, found.petition_id)
    }
    verdict.lost += verdict.found("milestones without a delivery to a target", wanted - rows.keys())
    verdict.milestones_double += verdict.found("deliveries that nobody asked for", rows.keys() - wanted)
    verdict.milestones_double += verdict.found("deliveries that are there twice", [k for k, n in rows.items() if n > 1])
    open_ones = [row for row in observed.stored.deliveries if row.state in ("pending", "sending")]
    verdict.found("deliveries that were never finished", open_ones)
    if observed.stored.waiting:
        verdict.found("milestones that wait for their petition", [observed.stored.waiting])


def milestones_are_mailed_once(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """Each target gets each milestone in one mail; a copy has the same Message-ID and the same bytes."""
    copies: defaultdict[str, list[Mail]] = defaultdict(list)
    named: defaultdict[tuple[str, int, str], set[str]] = defaultdict(set)
    for mail in observed.mails:
        copies[mail.message_id].append(mail)
        if mail.kept:
            for threshold in mail.milestones:
                named[mail.petition_id, threshold, mail.recipient].add(mail.message_id)
    double = {name: ids for name, ids in named.items() if len(ids) > 1}
    verdict.milestones_double += verdict.found("milestones mailed to a target in several mails", double.items())
    changed = [name for name, mails in copies.items() if len({(one.digest, one.recipient) for one in mails}) > 1]
    verdict.milestones_double += verdict.found("Message-IDs of mails that are not the same", changed)
    again = [name for name, mails in copies.items() for _ in [one for one in mails if one.kept][1:]]
    verdict.mail_window = len(again)
    if not sent.touched(*_REPEATS_MAILS):
        verdict.milestones_double += verdict.found("mails that went out again although nothing failed", again)

    wanted = {
        (found.petition_id, found.threshold, email)
        for found in observed.seen.milestones
        for _, email in _targets(sent, found.petition_id)
    }
    unmailed = wanted - named.keys() - _refused(observed)
    verdict.lost += verdict.found("milestones that a target was not told", unmailed)
    verdict.milestones_double += verdict.found("mails about milestones that were not announced", named.keys() - wanted)
    if not sent.touched("smtp"):
        failed = [row for row in observed.stored.deliveries if row.state == "failed"]
        verdict.found("mails that failed although the SMTP server took all", failed)


def _refused(observed: Observed) -> set[tuple[str, int, str]]:
    """Milestones whose mail to a target the SMTP server refused for good, and which are stored as failed."""
    failed = {row.delivery_id for row in observed.stored.deliveries if row.state == "failed"}
    rows = {
        (row.petition_id, row.threshold, row.email)
        for row in observed.stored.deliveries
        if row.delivery_id in failed or row.folded_into in failed
    }
    refused = {
        (mail.petition_id, threshold, mail.recipient)
        for mail in observed.mails
        if mail.refused
        for threshold in mail.milestones
    }
    return rows & refused


def _targets(sent: Sent, petition_id: str) -> tuple[tuple[str, str], ...]:
    petition = sent.petitions.get(petition_id)
    return () if petition is None else petition.targets


def dead_letters_are_the_poison(sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """Exactly the records that faults spoiled are dead letters: each place once, untouched, with its reason."""
    letters: defaultdict[object, list[DeadLetter]] = defaultdict(list)
    for letter in observed.seen.dead_letters:
        letters[letter.source].append(letter)
    verdict.lost += verdict.found(
        "unreadable records that are no dead letters", observed.planted.keys() - letters.keys()
    )
    known = {**observed.planted_before, **observed.planted}
    # An ingest that starts with a wrong clock learns it from its first acknowledgement: that record is on the topic, and the
    # answer was 503. Another check covers that it was not 202: every accepted signature has an outcome.
    of_another_day = {
        source
        for source, found in letters.items()
        if sent.touched("clock") and found[0].reason == "out_of_range" and found[0].topic == SIGNATURES_SUBMITTED.dlq
    }
    strangers = [
        found[0]
        for source, found in letters.items()
        if source not in known.keys() | of_another_day and not _follows(observed, found[0])
    ]
    verdict.lost += verdict.found("dead letters that nobody spoiled", strangers)
    wrong, changed = [], []
    for source, planted in known.items():
        for letter in letters.get(source, ()):
            if letter.topic != f"{source[0]}.dlq" or letter.reason != planted.reason:
                wrong.append((planted.reason, letter))
            if letter.omitted != (planted.digest is None) or (planted.digest and letter.digest != planted.digest):
                changed.append((source, planted.reason))
    verdict.found("dead letters with a wrong reason or topic", wrong)
    verdict.found("dead letters that are not the record, untouched", changed)
    if not sent.touched(*_REPEATS_DEAD_LETTERS):
        verdict.found("dead letters written again although nothing failed", [s for s, f in letters.items() if f[1:]])


def _follows(observed: Observed, letter: DeadLetter) -> bool:
    """Whether it is about a petition that was spoiled in a way that explains such letters."""
    return letter.petition is not None and any(
        letter.petition.startswith(petition) and letter.reason in reasons
        for petition, reasons in observed.spoiled.letters.items()
    )


def nothing_else_is_wrong(_sent: Sent, observed: Observed, verdict: Verdict) -> None:
    """Services are ready, personal data is in no wrong place, and the observer saw everything."""
    verdict.found("services that are not ready", observed.not_ready)
    verdict.found("personal data or secrets", [*observed.seen.leaks, *observed.leaks])
    verdict.found("troubles of the observer itself", observed.seen.troubles)
