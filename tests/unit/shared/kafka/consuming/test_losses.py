"""When too much goes to the dead letters."""

from shared.kafka.consuming.losses import Losses


def losses(*, ratio: float = 0.5, window: int = 10, run: int = 3) -> Losses:
    return Losses("a.topic", ratio=ratio, window=window, run=run)


def test_nothing_is_said_of_a_ratio_before_the_window_is_full() -> None:
    some = losses()
    some.note_read([True] * 9)
    assert some.too_many() is None
    some.note_read([True])
    assert (some.too_many() or "").startswith(
        "stopped: 10 of the last 10 records of a.topic could not be read or applied;"
    )


def test_what_is_set_aside_later_counts_like_what_could_not_be_read() -> None:
    some = losses()
    some.note_read([False] * 10)
    some.note_refused(5)
    assert some.too_many() is None, "half of them, and no more"
    some.note_refused(1)
    assert "6 of the last 10" in (some.too_many() or "")


def test_more_may_be_set_aside_than_the_window_remembers() -> None:
    some = losses(window=2)
    some.note_read([False] * 5)
    some.note_refused(5)
    assert "2 of the last 2" in (some.too_many() or "")


def test_a_run_that_nobody_can_explain_is_too_much_before_the_window_is_full() -> None:
    some = losses()
    for _ in range(3):
        some.note_unexplained()
    assert some.too_many() is None
    some.note_unexplained()
    assert "4 records of a.topic in a row" in (some.too_many() or "")


def test_one_record_that_goes_well_ends_the_run() -> None:
    some = losses()
    for _ in range(3):
        some.note_unexplained()
    some.note_applied()
    some.note_unexplained()
    assert some.too_many() is None


def test_a_ratio_of_one_lets_everything_through() -> None:
    some = losses(ratio=1)
    some.note_read([True] * 20)
    for _ in range(20):
        some.note_unexplained()
    assert some.too_many() is None
