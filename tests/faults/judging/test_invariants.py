"""The checks of a fault run find violations: each test breaks one thing, which must be named and counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.tally.counting.audit import PetitionAudit
from services.tally.counting.tally import TallyState
from tests.faults.judging import perfect as perfect_run
from tests.faults.judging.invariants import judge
from tests.faults.judging.perfect import BEFORE, COUNCIL, HOT, POISON, SIDE, Perfect, delivery, letter, mail, perfect
from tests.faults.judging.verdict import Verdict
from tests.faults.notes import Planted
from tests.faults.watching.observed import Shown
from tests.faults.watching.seen import SeenMilestone, SeenRejection, SeenSnapshot
from tests.faults.watching.stores import Lane, StoredMilestone

Wrong = Callable[[Perfect], object]


def _judged(wrong: Wrong | None = None, *, touches: tuple[str, ...] = ()) -> Verdict:
    run = perfect()
    run.touches = frozenset(touches)
    if wrong is not None:
        wrong(run)
    return judge(run.sent(), run.observed())


def test_nothing_is_found_in_a_run_in_which_nothing_is_wrong() -> None:
    verdict = _judged()

    assert verdict.violations == []
    assert (verdict.lost, verdict.double, verdict.milestones_double, verdict.mail_window) == (0, 0, 0, 0)
    assert verdict.milestone_repeats == 0


# ------------------------------------------------------------------------------------------------- putting things wrong


def _forget_signature(run: Perfect) -> None:
    """An accepted signature was lost before verify: no row, no fact, not counted."""
    del run.signatures[4]
    gone = run.ledger.pop(4)
    run.seen.facts.pop((0, gone.position))


def _second_signature_of_a_signer(run: Perfect) -> None:
    perfect_run._signs(run, HOT, 0, "verified", again=True)
    run.signatures = [row for row in run.signatures if row.state != "duplicate"]


def _duplicate_counts_too(run: Perfect) -> None:
    place = next(place for place, row in enumerate(run.signatures) if row.state == "duplicate")
    run.signatures[place] = run.signatures[place]._replace(state="verified", reason=None)


def _all_are_duplicates(run: Perfect) -> None:
    run.signatures[0] = run.signatures[0]._replace(state="duplicate", reason="already_signed")


def _fact_missing(run: Perfect) -> None:
    run.seen.facts.pop((0, BEFORE + 2))


def _fact_invented(run: Perfect) -> None:
    fact = run.seen.facts[0, BEFORE + 1]
    run.seen.facts[0, 999] = fact._replace(position=999)


def _fact_changed(run: Perfect) -> None:
    run.seen.facts[0, BEFORE + 1] = run.seen.facts[0, BEFORE + 1]._replace(country="BE")


def _gap_in_a_lane(run: Perfect) -> None:
    run.lanes[0] = Lane(BEFORE + 10, 1, BEFORE + 11)


def _redis(count: int, revision: int, *, countries: int | None = None) -> Wrong:
    def wrong(run: Perfect) -> None:
        total = count if countries is None else countries
        run.states[HOT] = TallyState(count, revision, {}, {"NL": total}, {29400000: count})

    return wrong


def _last_snapshot(*snapshots: SeenSnapshot) -> Wrong:
    def wrong(run: Perfect) -> None:
        run.seen.snapshots[HOT, 0] += snapshots

    return wrong


def _no_snapshots(run: Perfect) -> None:
    run.seen.snapshots.pop((HOT, 0))


def _fewer_in_api(run: Perfect) -> None:
    run.shown[HOT] = Shown(4, 4, 4, 4)


def _stream(*revisions: int) -> Wrong:
    def wrong(run: Perfect) -> None:
        run.watched.streamed = [Shown(one, one, one, one) for one in revisions]

    return wrong


def _asked(*revisions: int) -> Wrong:
    def wrong(run: Perfect) -> None:
        run.watched.asked = [Shown(one, one, one, one) for one in revisions]

    return wrong


def _stream_breakdown(run: Perfect) -> None:
    run.watched.streamed[0] = Shown(2, 2, 1, 2)


def _refusal_untold(run: Perfect) -> None:
    run.seen.rejections.clear()


def _refusal_other_reason(run: Perfect) -> None:
    run.seen.rejections[f"{HOT}/0/again"] = SeenRejection(HOT, "x", "rejected", "name_invalid")


def _refused_and_counted(run: Perfect) -> None:
    run.seen.rejections[f"{HOT}/1"] = SeenRejection(HOT, "x", "duplicate", "already_signed")


def _milestone(event_id: str = "event-3", threshold: int = 3, count: int = 3) -> Wrong:
    def wrong(run: Perfect) -> None:
        run.seen.milestones.append(SeenMilestone(event_id, HOT, threshold, count, count))

    return wrong


def _no_milestone(run: Perfect) -> None:
    run.seen.milestones.clear()
    run.milestones.clear()
    run.deliveries.clear()
    run.mails.clear()


def _milestone_unmarked(run: Perfect) -> None:
    run.milestones[0] = StoredMilestone(HOT, 3, 3, announced=False)


def _mail_failed_unseen(run: Perfect) -> None:
    run.mails.clear()
    run.deliveries[0] = delivery(state="failed")


def _letter_changed(**change: object) -> Wrong:
    def wrong(run: Perfect) -> None:
        run.seen.dead_letters[0] = letter(**change)  # type: ignore[arg-type]

    return wrong


def _audit_drift(run: Perfect) -> None:
    run.audits[0] = PetitionAudit(HOT, 5, 4, 0, ())


def _audit_beyond(run: Perfect) -> None:
    run.audits[0] = PetitionAudit(HOT, 5, 5, 1, ())


def _signature_nobody_withdrew(run: Perfect) -> None:
    run.withdrawn.clear()


def _withdrawal_forgotten(run: Perfect) -> None:
    run.withdrawn[f"{SIDE}/0"] = "a command"


def _withdrawn_by_another_command(run: Perfect) -> None:
    """By the id of the duplicate and of the signature itself: it has to be the one that was sent."""
    run.withdrawn[f"{SIDE}/2"] = f"{SIDE}/2/withdrawn"


def _signature_from_nowhere(run: Perfect) -> None:
    run.accepted.pop(f"{HOT}/0/again")
    run.seen.commands.pop(f"{HOT}/0/again")


def _command_without_outcome(run: Perfect) -> None:
    run.seen.commands["unanswered"] = [("signatures.submitted.v1", 0, 99)]


def _against_policy(run: Perfect) -> None:
    run.turned_away.add((HOT, 1))


def _ledger_twice(run: Perfect) -> None:
    run.ledger.append(run.ledger[0]._replace(position=BEFORE + 11))
    run.seen.facts[0, BEFORE + 11] = run.seen.facts[0, BEFORE + 1]._replace(position=BEFORE + 11)


@pytest.mark.parametrize(
    ("wrong", "named", "counted"),
    [
        (_forget_signature, "accepted signatures without an outcome", "lost"),
        (_all_are_duplicates, "of whose accepted signatures none counts", "lost"),
        (_second_signature_of_a_signer, "of whose accepted signatures several count", "double"),
        (_duplicate_counts_too, "signer keys with two signatures that count", "double"),
        (_against_policy, "against their petition's policy", "double"),
        (_signature_nobody_withdrew, "nobody withdrew", "lost"),
        (_withdrawal_forgotten, "withdrawn signatures that are not withdrawn", None),
        (_withdrawn_by_another_command, "by another command than the one that was given", "double"),
        (_signature_from_nowhere, "stored signatures that nobody sent", None),
        (_command_without_outcome, "signatures on the topic without an outcome", None),
        (lambda run: run.seen.commands.pop(f"{HOT}/1"), "that are not on signatures.submitted", "lost"),
        (lambda run: run.signatures.append(run.signatures[0]), "stored twice", "double"),
        (_fact_missing, "ledger rows that signatures.verified does not tell", "lost"),
        (_fact_invented, "facts that the ledger does not have", "double"),
        (_fact_changed, "say something else than the ledger", "double"),
        (lambda run: run.strange.append((0, 3)), "facts of earlier runs", "double"),
        (_ledger_twice, "signatures that the ledger has twice", "double"),
        (_gap_in_a_lane, "lanes of the ledger with gaps", "lost"),
        (
            lambda run: run.lanes.update({0: Lane(BEFORE + 11, 1, BEFORE + 11)}),
            "positions of this run that no petition",
            "lost",
        ),
        (lambda run: run.seen.contradict("an event at two positions", "x"), "an event at two positions", "double"),
        (_refusal_untold, "refusals that signatures.rejected does not tell", "lost"),
        (_refusal_other_reason, "with another reason", None),
        (_refused_and_counted, "told as counted and as refused", "double"),
        (_redis(4, 4), "Redis has 4", "lost"),
        (_redis(6, 6), "Redis has 6", "double"),
        (_redis(5, 6), "revisions of run001-hot", None),
        (_redis(5, 5, countries=4), "tallies in Redis that their break-downs", None),
        (_fewer_in_api, "the API has 4", "lost"),
        (_no_snapshots, "the last snapshot has 0", "lost"),
        (_last_snapshot(SeenSnapshot(6, 4, 4, 4, 4)), "older snapshots after newer ones", "lost"),
        (_last_snapshot(SeenSnapshot(6, 6, 6, 6, 6)), "snapshots of run001-hot that cannot be", "double"),
        (_last_snapshot(SeenSnapshot(6, 4, 5, 4, 4), SeenSnapshot(7, 5, 5, 5, 5)), "that cannot be", "double"),
        (_last_snapshot(SeenSnapshot(6, 5, 5, 4, 5)), "counts that their break-downs do not sum up to", None),
        (_stream_breakdown, "counts that their break-downs do not sum up to", None),
        (_stream(2, 5, 4), "revisions that went back in a stream", None),
        (_stream(2, 5, 5), "revisions that came twice in a stream", None),
        (_asked(2, 5, 4), "revisions that went back in the API", None),
        (_audit_drift, "the audit does not find right", None),
        (_audit_beyond, "the audit does not find right", None),
        (_milestone("another"), "milestones announced as several events", "milestones_double"),
        (_milestone(), "milestones announced again although nothing failed", None),
        (_milestone("event-500", 500, 5), "milestones announced with a count that cannot be", None),
        (_milestone("event-4", 4, 4), "milestones that no petition has", None),
        (_milestone(count=4), "milestones told with different numbers", None),
        (_no_milestone, "milestones that were reached and not announced", "lost"),
        (_milestone_unmarked, "never marked as announced", None),
        (lambda run: run.deliveries.clear(), "milestones without a delivery", "lost"),
        (lambda run: run.deliveries.append(delivery()), "deliveries that are there twice", "milestones_double"),
        (lambda run: run.deliveries.append(delivery(threshold=500)), "nobody asked for", "milestones_double"),
        (lambda run: run.deliveries.__setitem__(0, delivery(state="sending")), "never finished", None),
        (lambda run: run.mails.clear(), "milestones that a target was not told", "lost"),
        (lambda run: run.mails.append(mail(message_id="<other@test>")), "in several mails", "milestones_double"),
        (lambda run: run.mails.append(mail(digest="else")), "mails that are not the same", "milestones_double"),
        (lambda run: run.mails.append(mail()), "went out again although nothing failed", "milestones_double"),
        (
            lambda run: run.mails.append(mail(message_id="<4@test>", milestones=(4,))),
            "not announced",
            "milestones_double",
        ),
        (_mail_failed_unseen, "milestones that a target was not told", "lost"),
        (lambda run: run.seen.dead_letters.clear(), "unreadable records that are no dead letters", "lost"),
        (lambda run: run.planted.clear(), "dead letters that nobody spoiled", "lost"),
        (_letter_changed(digest="other"), "not the record, untouched", None),
        (_letter_changed(reason="key"), "wrong reason or topic", None),
        (_letter_changed(omitted=True), "not the record, untouched", None),
        (lambda run: run.seen.dead_letters.append(letter()), "dead letters written again", None),
        (lambda run: run.not_ready.append("verify: Kafka"), "services that are not ready", None),
        (lambda run: run.leaks.append("a name in the metrics"), "personal data or secrets", None),
        (lambda run: run.seen.leaks.append("a name in a key"), "personal data or secrets", None),
        (lambda run: run.seen.troubles.append("offset out of range"), "troubles of the observer", None),
    ],
)
def test_one_thing_that_is_wrong_is_named_and_counted(wrong: Wrong, named: str, counted: str | None) -> None:
    verdict = _judged(wrong)

    assert any(named in violation for violation in verdict.violations), verdict.violations
    if counted is not None:
        assert getattr(verdict, counted) > 0


# -------------------------------------------------------------------------------------------- what the design allows


def test_a_mail_that_came_again_is_the_smtp_window_when_its_sender_was_killed() -> None:
    verdict = _judged(lambda run: run.mails.append(mail(answer=None)), touches=("notify",))

    assert (verdict.violations, verdict.mail_window, verdict.milestones_double) == ([], 1, 0)


def test_a_mail_that_was_put_off_at_first_is_no_copy() -> None:
    verdict = _judged(lambda run: run.mails.insert(0, mail(answer=451)), touches=("smtp",))

    assert (verdict.violations, verdict.mail_window) == ([], 0)


def test_a_mail_that_the_server_refused_for_good_is_not_missed() -> None:
    def wrong(run: Perfect) -> None:
        run.mails[:] = [mail(answer=550)]
        run.deliveries[0] = delivery(state="failed")

    assert _judged(wrong, touches=("smtp",)).violations == []
    assert _judged(wrong).violations != []


def test_a_milestone_that_came_again_with_its_id_is_counted_when_tally_was_killed() -> None:
    verdict = _judged(_milestone(), touches=("tally",))

    assert (verdict.violations, verdict.milestone_repeats, verdict.milestones_double) == ([], 1, 0)


def test_a_late_snapshot_is_allowed_after_two_owners_if_a_newer_one_follows() -> None:
    late = _last_snapshot(SeenSnapshot(6, 4, 4, 4, 4), SeenSnapshot(7, 5, 5, 5, 5))

    assert _judged(late, touches=("tally",)).violations == []
    assert _judged(late, touches=("notify",)).violations != []


def test_a_late_snapshot_may_never_be_the_last_one() -> None:
    verdict = _judged(_last_snapshot(SeenSnapshot(6, 4, 4, 4, 4)), touches=("tally",))

    assert any("not its newest" in violation for violation in verdict.violations)


def test_a_dead_letter_may_be_written_again_when_its_batch_was() -> None:
    assert _judged(lambda run: run.seen.dead_letters.append(letter()), touches=("verify",)).violations == []


def test_a_dead_letter_that_can_hold_no_more_has_to_say_so() -> None:
    def wrong(run: Perfect) -> None:
        run.planted[POISON] = Planted("schema", None)
        run.seen.dead_letters[0] = letter(omitted=True, digest="empty")

    assert _judged(wrong).violations == []


def test_a_signature_that_nobody_was_told_of_may_count() -> None:
    """ingest was killed between Kafka's acknowledgement and its answer, and the client never retried."""
    assert _judged(lambda run: run.accepted.pop(f"{SIDE}/0")).violations == []


def test_examples_are_few_and_the_number_is_whole() -> None:
    verdict = _judged(lambda run: run.leaks.extend(f"leak {number}" for number in range(40)))

    (violation,) = verdict.violations
    assert ": 40 (" in violation
    assert violation.count("leak ") == 5


def test_a_mail_to_somebody_who_is_no_target_is_found() -> None:
    stranger = f"x{COUNCIL}"

    verdict = _judged(lambda run: run.mails.append(mail(message_id="<other@test>", recipient=stranger)))

    assert verdict.milestones_double == 1
