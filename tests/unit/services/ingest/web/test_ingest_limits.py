"""How much one client may send, and how much is worked on at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.web import limits
from services.ingest.web.limits import ClientRate, InFlight


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_send_a_minutes_amount_at_once_and_then_at_the_rate():
    clock = Clock()
    rate = ClientRate("120/minute", clock)
    assert [rate.wait("one") for _ in range(120)] == [0.0] * 120
    wait = rate.wait("one")
    assert 0.4 < wait <= 0.5
    clock.now += wait
    assert rate.wait("one") == 0.0
    assert rate.wait("one") > 0.0


def test_one_clients_requests_cost_another_nothing():
    rate = ClientRate("1/minute", Clock())
    assert rate.wait("one") == 0.0
    assert rate.wait("one") > 0.0
    assert rate.wait("two") == 0.0


def test_refused_requests_do_not_make_the_wait_longer():
    clock = Clock()
    rate = ClientRate("1/minute", clock)
    rate.wait("one")
    assert [round(rate.wait("one"), 6) for _ in range(5)] == [60.0] * 5
    clock.now += 60
    assert rate.wait("one") == 0.0


def test_off_admits_everyone():
    rate = ClientRate("off", Clock())
    assert not any(rate.wait("one") for _ in range(10_000))


def test_asking_whether_a_client_is_over_its_rate_counts_nothing_and_says_what_waiting_would():
    clock = Clock()
    rate = ClientRate("2/minute", clock)
    for _ in range(10):
        assert rate.overdrawn("one") == 0.0
    rate.wait("one")
    rate.wait("one")
    assert rate.overdrawn("one") == rate.wait("one") > 0.0
    clock.now += rate.overdrawn("one")
    assert rate.overdrawn("one") == 0.0
    assert ClientRate("off", clock).overdrawn("one") == 0.0


@given(
    steps=st.lists(st.floats(min_value=0, max_value=3, allow_nan=False), min_size=1, max_size=300),
    amount=st.integers(min_value=1, max_value=10),
)
def test_never_more_than_the_burst_and_the_rate_together_however_the_generations_turn(steps, amount):
    """In any stretch of t seconds at most amount + t * rate requests pass (GCRA's bound)."""
    clock = Clock()
    rate = ClientRate(f"{amount}/second", clock)
    passed = []
    for step in steps:
        clock.now += step
        if rate.wait("one") == 0.0:
            passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= amount + (passed[last] - passed[first]) * amount + 1e-6


def test_what_is_remembered_of_clients_is_forgotten_after_two_periods():
    clock = Clock()
    rate = ClientRate("10/second", clock)
    for number in range(1_000):
        rate.wait(str(number))
    for _ in range(2):
        clock.now += 1.0
        rate.wait("another")
    assert len(rate._young) + len(rate._old) <= 2


def test_in_flight_is_full_at_its_bound_and_has_room_again_when_one_is_done():
    in_flight = InFlight(2)
    with in_flight:
        assert not in_flight.full
        with in_flight:
            assert in_flight.full
        assert not in_flight.full
    assert in_flight.count == 0


async def test_who_lingers_is_not_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TARPIT_SECONDS", 0.0)
    in_flight = InFlight(1)
    await in_flight.tarpit()
    assert (in_flight.count, in_flight.full) == (0, False)
