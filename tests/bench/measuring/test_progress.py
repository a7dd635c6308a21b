"""Costs between two moments of a course."""

from __future__ import annotations

import pytest

from tests.bench.measuring.progress import TALLY, VERIFY, Course, Moment


def _course() -> Course:
    course = Course()
    for at, verified, counted, cpu in (
        (0, 0, 0, 1.0),
        (1, 1_000, 500, 1.5),
        (2, 9_000, 5_000, 2.0),
        (3, 9_000, 9_000, 2.1),
    ):
        course.moments.append(Moment(at, {VERIFY: verified, TALLY: counted}, {"verify": cpu}, {"verify": 10 * at}))
    return course


def test_a_stretch_begins_and_ends_when_the_numbers_are_first_reached() -> None:
    stretch = _course().stretch(VERIFY, 800, 8_500)
    assert (stretch.records, stretch.seconds, stretch.rate) == (8_000, 1, 8_000)
    assert stretch.cpu_us("verify") == pytest.approx(62.5)


def test_a_stretch_can_wait_for_another_reader() -> None:
    stretch = _course().stretch(VERIFY, 800, 8_500, until=TALLY)
    assert (stretch.records, stretch.seconds) == (8_000, 2)


def test_a_course_that_ends_too_early_has_no_such_stretch() -> None:
    with pytest.raises(ValueError, match="10000"):
        _course().stretch(VERIFY, 800, 10_000)


def test_nothing_done_is_not_a_cost() -> None:
    with pytest.raises(ValueError, match="nothing"):
        _ = _course().stretch(VERIFY, 800, 900).records


def test_memory_is_the_most_that_was_seen() -> None:
    assert _course().rss_most("verify") == 30
