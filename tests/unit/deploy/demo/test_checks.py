"""A run in which everything came right passes, and whatever goes wrong is named."""

from collections import Counter
from dataclasses import replace

from deploy.demo.checks import Check, outcome_totals, run_checks
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Observed, PetitionDrift, ReceivedMail
from tests.unit.deploy.demo.perfect import SURGE, perfect_observation, perfect_progress

FERRY = "lake-evening-ferry"


def wrong(observed: Observed, progress: Progress | None = None) -> list[Check]:
    return [check for check in run_checks(SURGE, progress or perfect_progress(), observed) if not check.ok]


def names(checks: list[Check]) -> set[str]:
    return {check.name for check in checks}


def test_a_perfect_run_passes_every_check() -> None:
    assert wrong(perfect_observation()) == []


def test_everything_sent_has_one_of_five_outcomes() -> None:
    totals = outcome_totals(perfect_progress(), perfect_observation())
    assert list(totals) == ["verified", "duplicate", "rejected", "refused", "dead_lettered"]
    assert sum(totals.values()) == SURGE.expectation.sent


def test_a_signature_too_many_in_the_tally_is_named_with_both_figures() -> None:
    tallies = {**perfect_observation().tallies, FERRY: SURGE.petitions.open[-1].supporters + 1}
    (found,) = wrong(perfect_observation(tallies=tallies))
    assert found.name == FERRY
    assert "tally says" in found.wrong[0]


def test_a_lost_signature_shows_wherever_it_is_missing() -> None:
    outcomes = Counter(perfect_observation().outcomes)
    outcomes[FERRY, "verified", ""] -= 1
    found = wrong(perfect_observation(outcomes=outcomes))
    assert {FERRY, "verified"} < names(found)
    assert any("all five together" in check.name for check in found)


def test_a_rejection_for_the_wrong_reason_is_named_though_the_totals_agree() -> None:
    outcomes = Counter(perfect_observation().outcomes)
    outcomes["quillmere-river-path", "duplicate", "already_signed"] -= 1
    outcomes["quillmere-river-path", "rejected", "consent_missing"] += 1
    found = wrong(perfect_observation(outcomes=outcomes))
    assert names(found) == {"duplicate: already_signed", "rejected: consent_missing"}
    assert all("quillmere-river-path" in check.wrong[0] for check in found)


def test_two_petitions_that_exchange_a_duplicate_are_both_named() -> None:
    outcomes = Counter(perfect_observation().outcomes)
    outcomes[FERRY, "duplicate", "already_signed"] -= 1
    outcomes["quillmere-night-bus", "duplicate", "already_signed"] += 1
    (found,) = wrong(perfect_observation(outcomes=outcomes))
    assert found.expected == found.got
    assert len(found.wrong) == 2


def test_a_signature_left_pending_is_wrong() -> None:
    outcomes = Counter({**perfect_observation().outcomes, (FERRY, "pending", ""): 1})
    assert "in a state that nobody asked for" in names(wrong(perfect_observation(outcomes=outcomes)))


def test_a_refusal_too_many_is_named_by_petition_and_reason() -> None:
    progress = perfect_progress()
    progress.refused[FERRY, "invalid_email"] += 1
    found = wrong(perfect_observation(), progress)
    assert "refused: invalid_email" in names(found)


def test_a_milestone_announced_twice_or_never_is_named() -> None:
    milestones = Counter(perfect_observation().milestones)
    milestones[FERRY, 10] += 1
    milestones["quillmere-night-bus", 5] -= 1
    (found,) = wrong(perfect_observation(milestones=milestones))
    assert found.wrong == (
        "lake-evening-ferry at 10: 2 times instead of 1",
        "quillmere-night-bus at 5: 0 times instead of 1",
    )


def test_a_target_told_twice_of_a_milestone_or_not_at_all_is_named() -> None:
    mails = list(perfect_observation().mails)
    first = mails[0]
    mails.append(replace(first, milestones=first.milestones[:1]))
    last = mails.pop(-2)
    found = wrong(perfect_observation(mails=mails))
    assert names(found) == {f"to {first.to[0]}", f"to {last.to[0]}"}


def test_mail_to_somebody_who_is_no_target_is_wrong() -> None:
    mails = [*perfect_observation().mails, ReceivedMail(("mayor@elsewhere.example",), FERRY, (1000,))]
    (found,) = wrong(perfect_observation(mails=mails))
    assert found.wrong == ("mayor@elsewhere.example",)


def test_one_mail_for_each_milestone_is_a_burst() -> None:
    mails = [
        ReceivedMail(mail.to, mail.petition_id, (threshold,))
        for mail in perfect_observation().mails
        for threshold in mail.milestones
    ]
    (found,) = wrong(perfect_observation(mails=mails))
    assert "not put together" in found.wrong[0]


def test_a_dead_letter_that_was_changed_is_wrong() -> None:
    letters = list(perfect_observation().dead_letters)
    letters[0] = replace(letters[0], value=b"tidied up")
    assert names(wrong(perfect_observation(dead_letters=letters))) == {"dead letters that are the record, untouched"}


def test_a_dead_letter_written_twice_after_a_redelivery_is_one() -> None:
    letters = list(perfect_observation().dead_letters)
    assert wrong(perfect_observation(dead_letters=[*letters, letters[0]])) == []


def test_a_signature_in_the_dead_letters_is_wrong() -> None:
    letters = list(perfect_observation().dead_letters)
    more = replace(letters[0], headers={**letters[0].headers, "dlq_source_offset": b"999999"})
    assert wrong(perfect_observation(dead_letters=[*letters, more]))


def test_dead_letters_of_other_topics_and_drift_and_surprises_are_wrong() -> None:
    progress = perfect_progress()
    progress.surprise("500")
    observed = perfect_observation(other_dead_letters=1, drifts=[PetitionDrift(FERRY, 0, 3, ("revision",))])
    assert names(wrong(observed, progress)) == {
        "dead letters of other topics",
        "drift between Redis and the ledger",
        "answers that no request should have had",
    }


def test_an_eighth_petition_on_the_organisations_page_is_wrong() -> None:
    (found,) = wrong(perfect_observation(petitions_started=8))
    assert "8 petitions, not 7" in found.wrong[0]
