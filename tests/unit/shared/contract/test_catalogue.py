"""The petition catalogue: when a petition takes signatures, and which state of it counts."""

from datetime import datetime, timedelta, timezone

import pytest

from shared.contract.catalogue import Admission, Catalogue, admission_at
from shared.contract.events import Organisation, Pause
from tests.unit.shared.contract.petitions import NOON, petition

INSTANT = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("moment", "admission"),
    [
        (NOON - HOUR, Admission.NOT_YET_OPEN),
        (NOON - INSTANT, Admission.NOT_YET_OPEN),
        (NOON, Admission.OPEN),
        (NOON + HOUR - INSTANT, Admission.OPEN),
        (NOON + HOUR, Admission.CLOSED),
        (NOON + 2 * HOUR, Admission.CLOSED),
    ],
)
def test_a_petition_takes_signatures_from_its_opening_up_to_but_not_at_its_closing(
    moment: datetime, admission: Admission
) -> None:
    assert admission_at(petition(opens_at=NOON, closes_at=NOON + HOUR), moment) is admission


def test_a_petition_without_an_opening_is_open_from_the_start() -> None:
    assert admission_at(petition(closes_at=NOON), NOON - 1000 * HOUR) is Admission.OPEN


def test_a_petition_without_a_closing_never_closes() -> None:
    assert admission_at(petition(opens_at=NOON), NOON + 100_000 * HOUR) is Admission.OPEN


def test_the_moment_is_compared_across_time_zones() -> None:
    amsterdam = timezone(timedelta(hours=1))
    one_oclock_there = datetime(2026, 11, 22, 13, tzinfo=amsterdam)  # noon in UTC
    assert admission_at(petition(opens_at=NOON), one_oclock_there) is Admission.OPEN
    assert admission_at(petition(closes_at=NOON), one_oclock_there) is Admission.CLOSED


def test_the_last_state_applied_is_the_one_that_is_known() -> None:
    catalogue = Catalogue()
    catalogue.apply(petition(title="Old"))
    catalogue.apply(petition(title="New"))
    known = catalogue.get("save-the-harbour")
    assert known is not None
    assert known.title == "New"
    assert len(catalogue) == 1
    assert list(catalogue) == [known]


def test_a_petition_that_was_removed_is_unknown_and_may_come_back() -> None:
    catalogue = Catalogue()
    catalogue.remove("save-the-harbour")  # a tombstone for one that was never known
    catalogue.apply(petition())
    catalogue.remove("save-the-harbour")
    assert catalogue.get("save-the-harbour") is None
    catalogue.apply(petition())
    assert catalogue.get("save-the-harbour") is not None


def test_an_organisations_petitions_come_by_title_and_without_those_of_others() -> None:
    catalogue = Catalogue()
    catalogue.apply(petition("b", title="Bees"))
    catalogue.apply(petition("a", title="Trees"))
    catalogue.apply(petition("c", title="Bees"))
    catalogue.apply(petition("d", title="Ants", organisation=Organisation(slug="others", name="Others")))
    assert [found.petition_id for found in catalogue.of_organisation("harbour-friends")] == ["b", "c", "a"]
    assert catalogue.of_organisation("nobody") == []


def test_a_petition_that_moved_to_another_organisation_is_only_there() -> None:
    catalogue = Catalogue()
    catalogue.apply(petition())
    catalogue.apply(petition(organisation=Organisation(slug="others", name="Others")))
    assert catalogue.of_organisation("harbour-friends") == []
    assert [found.petition_id for found in catalogue.of_organisation("others")] == ["save-the-harbour"]


def test_a_paused_petition_is_paused_between_its_times() -> None:
    paused = petition(opens_at=NOON, closes_at=NOON + HOUR, paused=Pause(sentence="Back on Monday."))
    assert [admission_at(paused, moment) for moment in (NOON - INSTANT, NOON, NOON + HOUR)] == [
        Admission.NOT_YET_OPEN,
        Admission.PAUSED,
        Admission.CLOSED,
    ]


def test_an_unpublished_petition_is_known_and_not_shown() -> None:
    catalogue = Catalogue()
    hidden = petition("hidden", published=False)
    catalogue.apply(hidden)
    catalogue.apply(petition("shown"))
    slug = hidden.organisation.slug
    assert catalogue.get("hidden") is hidden
    assert catalogue.published("hidden") is None
    assert [one.petition_id for one in catalogue.of_organisation(slug)] == ["shown"]
