"""Which times a record may speak of."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contract.bounds import COMMAND_AHEAD, EARLIEST, FACT_AHEAD, FAR_END, arrival, fit, in_utc, latest_time
from tests.support.signing import NOON, record

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
anything = st.datetimes(timezones=offsets)
arrivals = st.datetimes(datetime(2000, 1, 2), datetime(2110, 1, 1), timezones=st.just(UTC))


def milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize(("timestamp", "kind"), [(None, None), (None, 1), (0, 1), (-1, 1), (1_796_000_000_000, 0)])
def test_without_a_time_of_arrival_by_the_brokers_clock_the_far_end_bounds(
    timestamp: int | None, kind: int | None
) -> None:
    assert arrival(timestamp, kind) is None
    assert latest_time(timestamp, kind, COMMAND_AHEAD) == FAR_END


def test_a_brokers_clock_beyond_the_far_end_or_the_calendar_moves_no_bound_past_it() -> None:
    for timestamp in (milliseconds(FAR_END), 10**15, 2**63 - 1):
        assert latest_time(timestamp, 1, FACT_AHEAD) == FAR_END


@given(moment=anything, arrived=arrivals | st.none())
def test_any_time_with_any_offset_is_compared_as_in_utc(moment: datetime, arrived: datetime | None) -> None:
    told = record(b"", arrived=arrived)
    latest = latest_time(told.timestamp, told.timestamp_type, FACT_AHEAD)
    inside = EARLIEST <= moment <= latest  # Python compares at the ends of the calendar, too: it only cannot convert
    assert fit(told, FACT_AHEAD, moment) is inside
    assert fit(told, FACT_AHEAD, NOON if arrived is None else EARLIEST, moment) is inside
    assert in_utc(moment, latest) == (moment if inside else None)


@given(
    arrived=arrivals,
    ahead=st.timedeltas(timedelta(days=-2), timedelta(days=2)),
    set_back=st.timedeltas(timedelta(), timedelta(days=1)),
    offset=offsets,
)
def test_what_is_taken_for_a_command_is_taken_for_its_fact_also_by_a_broker_that_is_a_day_behind(
    arrived: datetime, ahead: timedelta, set_back: timedelta, offset: timezone
) -> None:
    command, fact = record(b"", arrived=arrived), record(b"", arrived=max(EARLIEST, arrived - set_back))
    moment = (arrived + ahead).astimezone(offset)
    if in_utc(moment, latest_time(command.timestamp, command.timestamp_type, COMMAND_AHEAD)) is not None:
        assert fit(fact, FACT_AHEAD, moment)
