"""What the API and the pages say of a petition and its tally."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tally.reading import views
from shared.contract.countries import COUNTRIES
from shared.contract.events import Policy, Target
from tests.support.tally_read_fakes import BUS, CHANGED, HARBOUR, petition, tally

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def targets(*names: str) -> list[Target]:
    return [
        Target(target_id=f"target-{number}", name=name, email="office@town.example")
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (134, "134"), (5_934, "5,934"), (111_236, "111,236")])
def test_numbers_are_exact_with_a_comma_between_thousands(number: int, text: str) -> None:
    assert views.grouped(number) == text


def test_one_supporter_is_not_supporters() -> None:
    assert [views.counted(number, "supporter", "supporters") for number in (0, 1, 2)] == [
        "supporters",
        "supporter",
        "supporters",
    ]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["The Harbour Council"], "The Harbour Council"),
        (["The Harbour Council", "the Minister for Rivers"], "The Harbour Council and the Minister for Rivers"),
        (["The Mayor", "The Council", "The Board"], "The Mayor, The Council and The Board"),
    ],
)
def test_a_petition_names_everyone_it_addresses(names: list[str], sentence: str) -> None:
    assert "".join(before + name for before, name in views.addressed_to(targets(*names))) == sentence


@pytest.mark.parametrize(("count", "following"), [(0, 1_000), (999, 1_000), (1_000, 5_000), (5_000, None)])
def test_the_next_milestone_is_the_lowest_above_the_count(count: int, following: int | None) -> None:
    assert views.tally_body(petition(), tally(count=count)).next_milestone == following


def test_a_milestone_at_the_count_is_reached() -> None:
    body = views.tally_body(petition(), tally(count=1_000))
    assert [(one.threshold, one.reached) for one in body.milestones] == [(1_000, True), (5_000, False)]
    assert body.next_milestone == 5_000


def test_blank_lines_separate_paragraphs_and_single_breaks_stay() -> None:
    assert views.paragraphs("\nOne\r\n\r\n \nTwo\n  still two\n\n") == ["One", "Two\nstill two"]


def test_a_short_text_is_its_own_excerpt() -> None:
    assert views.excerpt("The baths close.\n\nWe ask that  they stay\nopen.") == (
        "The baths close. We ask that they stay open."
    )


def test_an_excerpt_ends_with_the_first_paragraph_that_makes_it_long_enough() -> None:
    assert views.excerpt(f"{'word ' * 12}end.\n\nNot this.", limit=100) == f"{'word ' * 12}end."


def test_a_long_excerpt_is_cut_after_a_whole_word() -> None:
    assert views.excerpt("The quick, brown fox jumps over the lazy dog", limit=12) == "The quick…"


def test_a_word_that_ends_at_the_cut_stays() -> None:
    assert views.excerpt("abc def ghi", limit=8) == "abc def…"


@given(st.text(min_size=1, max_size=400), st.integers(5, 100))
def test_an_excerpt_is_one_line_and_never_too_long(text: str, limit: int) -> None:
    excerpt = views.excerpt(text, limit)
    assert len(excerpt) <= limit
    assert len(excerpt.splitlines()) <= 1


def test_the_organisations_supporters_are_the_sum_over_its_petitions() -> None:
    petitions = [petition(HARBOUR), petition(BUS, title="Later buses")]
    tallies = {HARBOUR: tally(HARBOUR, 70_350), BUS: tally(BUS, 40_886)}
    body = views.organisation_body(petitions, tallies, NOW)
    assert (body.supporters, body.petitions_started) == (111_236, 2)


def test_the_petition_with_most_supporters_comes_first() -> None:
    petitions = [petition("a", title="A"), petition("b", title="B"), petition("c", title="C")]
    tallies = {"a": tally("a", 1), "b": tally("b", 2), "c": tally("c", 2)}
    body = views.organisation_body(petitions, tallies, NOW)
    assert [one.petition_id for one in body.petitions] == ["b", "c", "a"]


def test_a_renamed_organisation_has_the_name_of_its_newest_petition() -> None:
    renamed = petition(BUS).organisation.model_copy(update={"name": "River Valley"})
    petitions = [petition(BUS, organisation=renamed, changed_at=CHANGED + timedelta(days=1)), petition(HARBOUR)]
    body = views.organisation_body(petitions, {HARBOUR: tally(HARBOUR), BUS: tally(BUS)}, NOW)
    assert body.name == "River Valley"


def test_targets_are_shown_without_their_addresses() -> None:
    body = views.organisation_body([petition()], {HARBOUR: tally()}, NOW)
    assert "@" not in body.model_dump_json()
    assert [(one.name, one.kind) for one in body.petitions[0].targets] == [
        ("The Harbour Council", "body"),
        ("the Minister for Rivers", "person"),
    ]


@pytest.mark.parametrize(
    ("times", "admission", "badge"),
    [
        ({}, "open", None),
        ({"opens_at": NOW}, "open", None),
        ({"closes_at": NOW}, "closed", "Closed"),
        ({"opens_at": NOW + timedelta(days=1)}, "not_yet_open", "Opens on 3 March 2026"),
    ],
)
def test_a_petition_says_whether_it_can_be_signed_now(
    times: dict[str, datetime], admission: str, badge: str | None
) -> None:
    asked = petition(**times)
    assert views.petition_view(asked, tally(), NOW).admission == admission
    assert views.card_view(asked, NOW).badge == badge
    body = views.organisation_body([asked], {HARBOUR: tally()}, NOW)
    assert body.petitions[0].open is (admission == "open")


def test_a_moment_is_written_out_in_utc() -> None:
    moment = datetime.fromisoformat("2027-03-03T01:05:00+02:00")
    assert views.moment_text(moment) == "2 March 2027, 23:05 UTC"


def test_every_country_can_be_chosen_once_and_accents_do_not_move_a_name() -> None:
    choices = views.country_choices(None)
    assert dict(choices) == COUNTRIES
    assert len(choices) == len(COUNTRIES)
    names = [name for _, name in choices]
    assert names.index("Åland Islands") < names.index("Albania")


def test_a_petition_for_some_countries_offers_only_these() -> None:
    view = views.petition_view(petition(policy=Policy(countries=["NL", "BE", "XX"])), tally(), NOW)
    assert view.countries == [("BE", "Belgium"), ("NL", "Netherlands")]
    assert view.restricted


def test_progress_says_how_many_are_missing() -> None:
    view = views.petition_view(petition(), tally(count=4_849), NOW)
    assert view.progress == views.Progress(threshold=5_000, to_go=151)


def test_there_is_no_progress_beyond_the_last_milestone() -> None:
    assert views.petition_view(petition(), tally(count=5_000), NOW).progress is None


@given(count=st.integers(0, 30), thresholds=st.lists(st.integers(1, 30)))
def test_the_next_milestone_is_the_lowest_that_is_not_reached(count: int, thresholds: list[int]) -> None:
    found = views.next_milestone(count, thresholds)
    above = [threshold for threshold in thresholds if threshold > count]
    assert found == (min(above) if above else None)
