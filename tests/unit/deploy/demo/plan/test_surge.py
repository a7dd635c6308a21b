"""The surge is the same every time, mixed as specified, and what it expects agrees with the rules of the system."""

import json
from collections import Counter, defaultdict
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deploy.demo.plan.submission import Submission
from deploy.demo.plan.surge import Surge
from shared.contract.countries import COUNTRIES
from shared.contract.eligibility import CODES
from shared.contract.identity import InvalidEmail, canonical_email
from shared.contract.topics import DEFAULT_PARTITIONS

README = (Path(__file__).resolve().parents[5] / "README.md").read_text(encoding="utf-8")


@cache
def whole() -> Surge:
    """The surge of the demo. It takes seconds to make: once, and only where a test asks for it."""
    return Surge()


def submissions(surge: Surge) -> list[Submission]:
    alone = (single.submission for single in surge.singles)
    return [*alone, *chain.from_iterable(batch.lines for batch in surge.batches)]


@cache
def bodies() -> list[tuple[Submission, dict[str, Any]]]:
    return [(item, json.loads(item.body)) for item in submissions(whole())]


@cache
def signers_by_petition() -> dict[str, Counter[str]]:
    """How often each mailbox signs each petition, validly."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for item, body in bodies():
        if item.outcome in ("verified", "duplicate"):
            found[item.petition_id][canonical_email(body["email"])] += 1
    return found


def test_the_same_seed_gives_the_same_surge_and_another_seed_another_one() -> None:
    first, second, other = Surge(scale=0.02), Surge(scale=0.02), Surge(scale=0.02, seed=1)
    assert first.singles == second.singles
    assert first.batches == second.batches
    assert first.poison == second.poison
    assert first.expectation == second.expectation
    assert other.singles != first.singles
    assert {outcome: other.expectation.total(outcome) for outcome in ("verified", "duplicate")} == {
        outcome: first.expectation.total(outcome) for outcome in ("verified", "duplicate")
    }


def test_every_petition_gets_exactly_its_supporters_however_often_they_sign() -> None:
    signers = signers_by_petition()
    assert {petition: len(mailboxes) for petition, mailboxes in signers.items()} == {
        petition.petition_id: petition.supporters for petition in whole().petitions.open
    }
    assert sum(len(mailboxes) for mailboxes in signers.values()) == 111_236


def test_what_is_expected_to_be_verified_and_duplicate_follows_from_who_signs() -> None:
    signers = signers_by_petition()
    for petition in whole().petitions.open:
        mailboxes = signers[petition.petition_id]
        assert whole().expectation.outcomes[petition.petition_id, "verified", ""] == len(mailboxes)
        repeats = mailboxes.total() - len(mailboxes)
        assert whole().expectation.outcomes[petition.petition_id, "duplicate", "already_signed"] == repeats


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_the_mixture_is_8_percent_repeats_2_percent_invalid_and_1_percent_elsewhere(scale: float) -> None:
    surge = whole() if scale == 1.0 else Surge(scale=scale)
    expected, supporters = surge.expectation, surge.petitions.supporters
    refused = expected.reasons("refused")
    elsewhere = refused["petition_closed"] + refused["petition_unknown"]
    assert expected.total("verified") == supporters
    assert expected.total("duplicate") == round(0.08 * supporters)
    assert sum(refused.values()) - elsewhere == round(0.02 * supporters)
    assert elsewhere == round(0.01 * supporters)


def test_there_are_200_poison_records_over_all_partitions_and_of_every_kind() -> None:
    assert len(whole().poison) == sum(whole().expectation.dead_letters.values()) == 200
    assert {record.partition for record in whole().poison} == set(range(DEFAULT_PARTITIONS))
    assert set(whole().expectation.dead_letters) == {
        "not_a_cloud_event",
        "unknown_type",
        "no_value",
        "schema",
        "event_id",
        "key",
        "email_invalid",
        "signer_key_mismatch",
    }


def test_everything_sent_is_expected_to_end_somewhere() -> None:
    expected = whole().expectation
    ends = sum(expected.total(outcome) for outcome in ("verified", "duplicate", "rejected", "refused"))
    assert expected.sent == ends + 200 == whole().submissions + 200 == 123_672
    assert expected.stored == expected.sent - 200 - expected.total("refused")


def test_at_least_20000_go_one_by_one_and_every_batch_is_of_one_petition_and_at_most_1000_lines() -> None:
    assert len(whole().singles) >= 20_000
    for batch in whole().batches:
        assert 1 <= len(batch.lines) <= 1_000
        assert {line.petition_id for line in batch.lines} == {batch.petition_id}


def test_some_single_submissions_are_forms_and_some_requests_are_sent_twice() -> None:
    shapes = Counter(single.sent_as for single in whole().singles)
    assert 0.2 < (shapes["form"] + shapes["browser"]) / len(whole().singles) < 0.3
    assert shapes["browser"] > 1_000
    retried = Counter(single.retried for single in whole().singles)
    assert retried["after"] > 400
    assert retried["at once"] > 400
    assert sum(batch.retried for batch in whole().batches) > 5


def test_submissions_are_shuffled_so_the_largest_petition_is_nowhere_alone() -> None:
    for start in range(0, 20_000, 1_000):
        assert len({single.submission.petition_id for single in whole().singles[start : start + 1_000]}) >= 8


def test_malformed_addresses_are_refused_and_all_others_are_addresses() -> None:
    given = {
        email: item.reason == "invalid_email" for item, body in bodies() if (email := body.get("email")) is not None
    }
    malformed = [email for email, is_malformed in given.items() if is_malformed]
    for email in malformed:
        with pytest.raises(InvalidEmail):
            canonical_email(email)
    assert len(malformed) > 5
    for email in given.keys() - malformed:
        canonical_email(email)  # raises if it is none


def test_every_rule_that_is_expected_to_refuse_is_a_rule_of_that_petition() -> None:
    policies = {petition.petition_id: petition.state.policy for petition in whole().petitions.open}
    reasons = set()
    for item, body in bodies():
        if item.reason not in CODES:
            continue
        assert item.outcome == "refused"
        reasons.add(item.reason)
        policy = policies[item.petition_id]
        match item.reason:
            case "country_unknown":
                assert body["country"] not in COUNTRIES
            case "country_not_eligible":
                assert policy.countries
                assert body["country"] in set(COUNTRIES) - set(policy.countries)
            case "email_domain_blocked":
                assert "throwaway.example" in policy.blocked_email_domains
                assert canonical_email(body["email"]).endswith("throwaway.example")
            case "consent_missing":
                assert policy.require_consent
                assert not body.get("consent", False)
            case "name_invalid":
                assert not any(letter.isalpha() for letter in body["name"]) or "win" in body["name"]
    assert reasons == CODES


def test_valid_signers_meet_the_rules_of_their_petition() -> None:
    policies = {petition.petition_id: petition.state.policy for petition in whole().petitions.open}
    for item, body in bodies():
        if item.outcome in ("verified", "duplicate"):
            policy = policies[item.petition_id]
            assert policy.countries is None or body["country"] in policy.countries
            assert body["consent"] is True


def test_nobody_who_is_refused_or_poison_is_also_a_signer() -> None:
    signers = {mailbox for mailboxes in signers_by_petition().values() for mailbox in mailboxes}
    for item, body in bodies():
        if item.outcome == "refused" and item.reason != "invalid_email":
            assert canonical_email(body["email"]) not in signers
    for record in whole().poison:
        if record.reason in ("signer_key_mismatch", "key", "event_id"):
            assert canonical_email(json.loads(record.value or b"")["email"]) not in signers


def test_the_worst_poison_is_a_whole_signature_with_one_thing_wrong() -> None:
    forged = next(record for record in whole().poison if record.reason == "signer_key_mismatch")
    command = json.loads(forged.value or b"")
    assert dict(forged.headers)["ce_id"].decode() == command["signature_id"]
    assert UUID(hex=(forged.key or b"").decode())


def test_the_readme_names_its_figures() -> None:
    assert f"a surge of {whole().expectation.sent:,} submissions" in README
    assert f"Into {whole().petitions.supporters:,} signatures that must count" in README
