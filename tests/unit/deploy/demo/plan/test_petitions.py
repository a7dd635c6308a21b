"""The demo's petitions are the seven of the specification, and everybody they address can get mail."""

import pytest

from deploy.demo.plan.petitions import load_petitions
from shared.contract.identity import canonical_email

PETITIONS = load_petitions()


def test_the_seven_petitions_have_111236_supporters_in_all() -> None:
    assert [petition.supporters for petition in PETITIONS.open] == [5_934, 9_005, 19_105, 134, 1_859, 4_849, 70_350]
    assert PETITIONS.supporters == 111_236


def test_all_seven_are_one_organisations_and_the_closed_one_is_anothers() -> None:
    assert {petition.state.organisation.slug for petition in PETITIONS.open} == {PETITIONS.organisation_slug}
    assert PETITIONS.closed.state.organisation.slug != PETITIONS.organisation_slug


def test_two_petitions_address_two_targets_each_and_one_addresses_a_body() -> None:
    assert sorted(len(petition.targets) for petition in PETITIONS.open) == [1, 1, 1, 1, 1, 2, 2]
    bodies = [petition for petition in PETITIONS.open if {target.kind for target in petition.targets} == {"body"}]
    assert len(bodies) == 1


def test_no_target_shares_an_address_so_every_mail_says_which_petition_it_is_about() -> None:
    addresses = [canonical_email(target.email) for petition in PETITIONS.all for target in petition.targets]
    assert len(set(addresses)) == len(addresses)
    assert all(address.endswith(".example") for address in addresses)


def test_every_petition_has_a_text_of_several_paragraphs_without_the_files_line_breaks() -> None:
    for petition in PETITIONS.all:
        paragraphs = petition.state.text.split("\n\n")
        assert len(paragraphs) >= 2
        assert not any("\n" in paragraph for paragraph in paragraphs)


def test_every_petition_has_a_milestone_that_is_reached_and_one_that_is_not() -> None:
    for petition in PETITIONS.open:
        assert 0 < len(petition.reached) < len(petition.state.milestones)
    assert max(len(petition.reached) for petition in PETITIONS.open) == 13


def test_the_closed_petition_is_closed_and_the_unknown_ones_are_no_petitions() -> None:
    assert PETITIONS.closed.state.closes_at is not None
    assert not {petition.petition_id for petition in PETITIONS.all} & set(PETITIONS.unknown)


@pytest.mark.parametrize("scale", [0.001, 0.02, 0.5])
def test_scaled_down_every_petition_keeps_signers_and_a_milestone_to_reach(scale: float) -> None:
    small = load_petitions(scale)
    assert small.supporters < PETITIONS.supporters
    assert all(petition.supporters >= 3 and petition.reached for petition in small.open)


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_that_makes_no_sense_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        load_petitions(scale)
