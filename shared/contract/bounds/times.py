"""Limits of times, the same in all services. Times are always compared in UTC.

A time outside the limits is well-formed, but a signature of the year 2099 would be the newest one of its petition for ever.
A record with such a time becomes a dead letter with the reason ``out_of_range``.

The brokers' clock defines the present: Kafka stamps each record with its time of arrival (``LogAppendTime``), and a time
in the record may be at most one day later (a fact's, two). The clock of the reading process is not used, so every replay
decides the same. What ingest checks before it answers 202 is stricter (`services.ingest.signing.clock`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Earlier than any petition."""

FAR_END: Final = datetime(2100, 1, 1, tzinfo=UTC) - timedelta.resolution
"""The latest time in a record without a time of arrival: on a topic that keeps the producers' timestamps, or from a broker
without timestamps. `groundswell topics apply` sets ``message.timestamp.type=LogAppendTime`` on every topic."""

COMMAND_AHEAD: Final = 1
"""How many days after its arrival a time in a command may be: far more than synchronised clocks differ."""

FACT_AHEAD: Final = COMMAND_AHEAD + 1
"""The same for a fact about an accepted command. It is more, because such a fact must never be refused: it arrives on
another topic, perhaps at another broker, whose clock may be behind that of the first or may have been set back."""

LOG_APPEND_TIME: Final = 1
"""The timestamp type of a time set by the broker. All other timestamps are set by the producer."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_MILLISECONDS: Final = int((FAR_END - _EPOCH).total_seconds() * 1000)

_FIRST_DAY: Final = EARLIEST.toordinal() + 1
"""A local date from which on no time is before `EARLIEST`, whatever its UTC offset; a day as of `datetime.toordinal`."""


class Stamped(Protocol):
    """A record with its timestamp."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def timestamp_type(self) -> int:
        """`LOG_APPEND_TIME` or another type."""


def arrival(timestamp: int | None, timestamp_type: int | None) -> int | None:
    """Return when a broker appended a record, by its clock, in milliseconds since 1970; None if it did not say.

    Args:
        timestamp: The timestamp of the record or of its acknowledgement.
        timestamp_type: `LOG_APPEND_TIME` or another type.
    """
    return timestamp if timestamp_type == LOG_APPEND_TIME and timestamp is not None and timestamp > 0 else None


def as_time(milliseconds: int) -> datetime:
    """Return an `arrival` in UTC; `FAR_END` if it is later, or outside the calendar."""
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds < _MOST_MILLISECONDS else FAR_END


@lru_cache(maxsize=256)  # the records of a batch have one time of arrival
def latest_time(timestamp: int | None, timestamp_type: int | None, ahead: int) -> datetime:
    """Return the latest time that a record may hold, in UTC.

    Args:
        timestamp: See `arrival`.
        timestamp_type: See `arrival`.
        ahead: Days: `COMMAND_AHEAD` or `FACT_AHEAD`.
    """
    arrived = arrival(timestamp, timestamp_type)
    return FAR_END if arrived is None else min(FAR_END, as_time(arrived) + timedelta(days=ahead))


def calendar_utc(moment: datetime) -> datetime | None:
    """Return `moment` in UTC, or None if it is then outside the years 1 to 9999 and could not be compared or shown.

    This is the only limit of a petition's opening and closing times.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


def in_utc(moment: datetime, latest: datetime) -> datetime | None:
    """Return `moment` in UTC, or None if it is not from `EARLIEST` to `latest`. `moment` is any aware datetime."""
    # Outside these years the conversion may leave the calendar: the year 1 begins in the year 0 further west.
    if not EARLIEST.year - 1 <= moment.year <= FAR_END.year + 1:
        return None
    moment = moment.astimezone(UTC)
    return moment if EARLIEST <= moment <= latest else None


@lru_cache(maxsize=256)
def _last_day(timestamp: int | None, timestamp_type: int | None, ahead: int) -> int:
    """Return a local date up to which no time is after the latest, whatever its UTC offset."""
    return latest_time(timestamp, timestamp_type, ahead).toordinal() - 2


def fit(record: Stamped, ahead: int, *moments: datetime) -> bool:
    """Return whether all `moments` in a record are from `EARLIEST` to the latest time that it may hold.

    The local date decides for nearly all of them. That takes 40 ns; a comparison across UTC offsets takes ten times as
    long, which matters at a hundred thousand facts a second.
    """
    last_day = _last_day(record.timestamp, record.timestamp_type, ahead)
    for moment in moments:
        if not _FIRST_DAY <= moment.toordinal() <= last_day:
            break
    else:
        return True
    latest = latest_time(record.timestamp, record.timestamp_type, ahead)
    return all(in_utc(moment, latest) is not None for moment in moments)
