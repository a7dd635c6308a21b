"""ingest's check of its clock against PostgreSQL's and Kafka's."""

from datetime import UTC, datetime, timedelta
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.ingest.metrics import IngestMetrics
from services.ingest.signing.clock import Clock, Source
from shared.contract.bounds import COMMAND_AHEAD, LOG_APPEND_TIME, in_utc, latest_time

NOW = 1_796_000_000.0


class World:
    """A clock, the true time, and sources that answer at once."""

    def __init__(self, *, off: float = 0) -> None:
        self.now, self.off = 0.0, off
        self._questions, self._set_at, self._set_to = 0, 0, off
        self.registry = CollectorRegistry()
        metrics = IngestMetrics(self.registry, in_flight=lambda: 0)
        self.clock = Clock(metrics, tolerance=60, wall=self._wall, monotonic=lambda: 7_000 + self.now)

    def time(self) -> datetime:
        """What the clock shows."""
        return datetime.fromtimestamp(NOW + self.now + self.off, UTC)

    def set_at_question(self, number: int, *, off: float) -> None:
        """The clock is set just before its next reading, or some readings later."""
        self._questions, self._set_at, self._set_to = 0, number, off

    def _wall(self) -> float:
        self._questions += 1
        if self._questions == self._set_at:
            self.off = self._set_to
        return NOW + self.now + self.off

    def tell(self, source: Source, *, off: float = 0, took: float = 0) -> None:
        """A source whose clock is wrong by `off` answers, and that takes a while."""
        asked = 7_000 + self.now
        self.now += took
        self.clock.told(source, NOW + self.now - took / 2 + off, asked, 7_000 + self.now)

    def offset(self, source: Source) -> float:
        value = self.registry.get_sample_value("groundswell_ingest_clock_offset_seconds", {"source": source})
        assert value is not None
        return value


async def test_before_anything_is_known_the_clock_is_taken_for_right() -> None:
    world = World(off=3_600)
    assert not world.clock.wrong
    assert await world.clock.check() is None
    assert isnan(world.offset("postgres"))


@pytest.mark.parametrize("year", [1970, 1999, 2100, 2101, 9000])
async def test_a_year_that_no_signature_can_be_of_needs_no_comparison(year: int) -> None:
    world = World(off=(datetime(year, 6, 1, tzinfo=UTC).timestamp() - NOW))
    assert world.clock.wrong
    assert await world.clock.check() == f"the clock is in the year {year}; nothing is accepted until it is right"


@pytest.mark.parametrize("source", ["postgres", "kafka"])
@pytest.mark.parametrize(("off", "wrong"), [(59, False), (-59, False), (61, True), (-61, True)])
def test_beyond_the_tolerance_it_is_wrong_in_either_direction(source: Source, *, off: float, wrong: bool) -> None:
    world = World(off=off)
    world.tell(source)
    assert world.clock.wrong is wrong
    assert world.offset(source) == pytest.approx(off)


def test_a_step_of_our_own_clock_needs_no_new_answer_to_be_noticed_and_to_be_over() -> None:
    world = World()
    world.tell("postgres")
    world.now += 10
    world.off = 3_600
    assert world.clock.look()
    world.off = 0
    assert not world.clock.look()


def test_a_step_is_noticed_before_anything_is_stamped() -> None:
    world = World()
    world.tell("postgres")
    world.now += 0.1
    assert world.clock.moment() == world.time()
    world.off = 3_600
    assert not world.clock.wrong
    assert world.clock.moment() is None
    assert world.clock.wrong
    world.off = 0
    assert world.clock.moment() == world.time()
    assert not world.clock.wrong


@pytest.mark.parametrize("step", range(1, 8))
def test_whenever_the_clock_is_set_no_wrong_time_is_given_out(step: int) -> None:
    """Also between two questions of one call: then the time before the step is given out, or none."""
    for before, after in ((0, 3_600), (3_600, 0), (0, -3_600), (-3_600, 0)):
        world = World(off=before)
        world.tell("postgres")
        right = world.time() - timedelta(seconds=before)
        world.set_at_question(step, off=after)
        while world.off != after:
            assert world.clock.moment() in (None, right)
        assert world.clock.moment() == (None if after else right)


async def test_a_source_that_agrees_does_not_hide_one_that_does_not_and_both_are_named() -> None:
    world = World()
    world.tell("kafka", off=-3_600)
    for _ in range(10):
        world.now += 2
        world.tell("postgres")
        assert world.clock.wrong
    assert await world.clock.check() == (
        "the clock is 3,600 s ahead of Kafka's and right by PostgreSQL's; nothing is accepted until it is right"
    )


def test_what_a_source_said_a_minute_ago_has_no_say_any_more() -> None:
    world = World()
    world.tell("kafka", off=-3_600)
    world.now += 59
    assert world.clock.look()
    world.now += 2
    assert not world.clock.look()
    assert isnan(world.offset("kafka"))


def test_an_answer_that_was_long_on_its_way_proves_less() -> None:
    world = World(off=100)
    world.tell("kafka", took=100)
    assert not world.clock.wrong, "it may be fifty seconds older than it looks, or fifty newer"
    world.tell("kafka", took=0.1)
    assert world.clock.wrong
    world.tell("kafka", took=100)
    assert not world.clock.look(), "the sharp one is old by now"
    world.tell("kafka", took=0.1)
    world.tell("kafka", took=50)
    assert world.clock.look(), "and a blurred one does not replace it before"


def test_a_process_that_was_frozen_between_two_looks_at_its_clocks_does_not_take_that_for_an_error() -> None:
    world = World()
    world.tell("postgres")
    frozen = iter([0.0, 900.0])

    def wall() -> float:
        world.now += next(frozen, 0.0)
        return NOW + world.now

    clock = Clock(
        IngestMetrics(CollectorRegistry(), in_flight=lambda: 0),
        tolerance=60,
        wall=wall,
        monotonic=lambda: 7_000 + world.now,
    )
    clock.told("postgres", NOW + world.now, 7_000 + world.now, 7_000 + world.now)
    assert not clock.wrong


arrived = st.integers(946_684_800_000, 4_102_444_800_000)


@given(arrival=arrived | st.none(), moment=st.datetimes(timezones=st.just(UTC)))
def test_what_is_answered_with_202_verify_takes(arrival: int | None, moment: datetime) -> None:
    if World().clock.stamped(moment, arrival):
        assert in_utc(moment, latest_time(arrival, LOG_APPEND_TIME, COMMAND_AHEAD)) is not None


@pytest.mark.parametrize(("seconds", "right"), [(0, True), (59, True), (61, False), (-80, True), (-100, False)])
def test_a_record_that_was_stamped_while_the_clock_was_wrong_for_a_moment_is_not_accepted(
    seconds: float, *, right: bool
) -> None:
    moment = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)
    assert World().clock.stamped(moment, round(NOW * 1000)) is right
