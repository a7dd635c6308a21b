"""Waits double up to a limit, and jitter takes at most half of one."""

from shared.runtime.backoff import Backoff, jittered


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    assert [Backoff(0.1, 5.0).after(failures) for failures in range(1, 9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_what_fails_for_years_waits_no_longer_than_the_longest() -> None:
    assert Backoff(0.1, 5.0).after(10**9) == 5.0


def test_no_wait_stays_no_wait() -> None:
    assert Backoff(0.0, 5.0).after(100) == 0.0


def test_jitter_leaves_at_least_half_of_a_wait() -> None:
    assert (jittered(8.0, 0.0), jittered(8.0, 0.5), jittered(8.0, 1.0)) == (4.0, 6.0, 8.0)
    assert all(4.0 <= jittered(8.0) <= 8.0 for _ in range(1_000))
