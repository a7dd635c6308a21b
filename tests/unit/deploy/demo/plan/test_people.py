"""No two signers share a mailbox, and every other spelling of a signer's address reaches the same one."""

from collections import Counter
from random import Random

import pytest

from deploy.demo.plan.people import people, respelled, spellings_of
from shared.contract.countries import COUNTRIES
from shared.contract.identity import canonical_email

SIGNERS = people(Random(1), first_number=1, count=5_000, countries=None)


def test_no_two_signers_share_a_mailbox() -> None:
    assert len({canonical_email(signer.email) for signer in SIGNERS}) == len(SIGNERS)


def test_signers_come_from_many_countries_and_all_of_them_exist() -> None:
    homes = Counter(signer.country for signer in SIGNERS)
    assert len(homes) > 35
    assert set(homes) <= set(COUNTRIES)


def test_signers_can_be_limited_to_countries() -> None:
    assert {one.country for one in people(Random(1), first_number=1, count=500, countries=["NL", "BE"])} == {"NL", "BE"}


def test_the_only_domains_outside_example_are_those_of_providers_with_spelling_rules() -> None:
    public = {domain for signer in SIGNERS if not (domain := signer.email.rpartition("@")[2]).endswith(".example")}
    for domain in public:
        assert canonical_email(f"one+two@{domain}") == canonical_email(f"one@{domain}")


def test_every_other_spelling_names_the_same_mailbox_and_is_another_text() -> None:
    random, seen = Random(2), Counter[str]()
    for signer in SIGNERS:
        for way in spellings_of(signer.email):
            other = respelled(random, signer.email, way)
            assert other != signer.email, (way, signer.email)
            assert canonical_email(other) == canonical_email(signer.email), (way, signer.email, other)
            seen[way] += 1
    assert set(seen) == {
        "case",
        "plus tag",
        "gmail dots",
        "full-width letters",
        "the provider's other domain",
        "A-label",
    }


@pytest.mark.parametrize("email", ["ela.dorn1@lakepost.example", "ela.dorn1@brücke.example"])
def test_a_provider_without_rules_gets_no_plus_tags_for_they_would_be_other_mailboxes(email: str) -> None:
    assert "plus tag" not in spellings_of(email)
    assert canonical_email(email.replace("@", "+tag@")) != canonical_email(email)
