"""The mail providers' rules: each has a source, each domain one provider, and what was released is never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shared.contract.mailboxes import providers
from shared.contract.mailboxes.providers import LATEST, NEWEST_FIRST, VERSIONS, rules_of

FILES = Path(providers.__file__).parent

RELEASED = {
    "providers_1.toml": "791c7290ae5eb41d13d866106fff5b56cfcff31bdcad52a9a5a53c2765241c26",
    "providers_2.toml": "ab26160a4facb99e5d41125829d36764c997f657b8688c7f9d5db95fd38af4aa",
}
"""SHA-256 of every file that petitions may have been made with. A change of the rules is a new file."""


def test_versions_count_from_one_and_the_newest_is_what_a_petition_gets() -> None:
    assert sorted(VERSIONS) == list(range(1, LATEST + 1))
    assert NEWEST_FIRST[0] == LATEST


def test_a_version_that_was_released_is_never_changed() -> None:
    """Its signers' keys would change, and who has signed could sign again."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES.glob("*.toml")}
    assert found == RELEASED


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_domains_are_written_as_they_stand_in_canonical_addresses(version: int) -> None:
    rules = VERSIONS[version]
    for domain, rule in rules.items():
        assert domain == domain.lower().strip(".")
        assert domain.isascii()
        assert rules[rule.domain].domain == rule.domain, "the first of interchangeable domains is the one of all"


def test_a_later_version_takes_no_domain_away() -> None:
    for version in range(2, LATEST + 1):
        assert VERSIONS[version - 1].keys() <= VERSIONS[version].keys()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('name = "A"\ndomains = ["a.example"]\ntags = []', "A: tags has no source"),
        ('name = "A"\ndomains = ["a.example"]\ntags = ["somebody said so"]', "A: tags has no source"),
        ('name = "A"\ndomains = ["a.example"]\nignored = { characters = ".", sources = [] }', "ignored has no source"),
        ('name = "A"\ndomains = ["a.example", "a.example"]', "a.example has two providers"),
    ],
)
def test_a_rule_without_a_source_and_a_domain_of_two_providers_are_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        rules_of(f"[[providers]]\n{text}\n")
