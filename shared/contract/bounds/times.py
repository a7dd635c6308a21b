"""Bounds of times, the same in all services, and always compared in UTC.

A time beyond them is no mistake in form: it fits its type, and the topic took it. But one signature of the year 2099
would be the newest one of its petition for ever. Such a record goes to the dead letters as ``out_of_range``.

The present is that of the brokers: Kafka stamps each record with its time of arrival (``LogAppendTime``), and a
time in the record may be a day later than that. The clock of the process that reads takes no part, so every replay decides
the same. What ingest checks before it answers 202 is stricter (`services.ingest.signing.clock`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Protocol

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Older than every petition here."""

FAR_END: Final = datetime(2100, 1, 1, tzinfo=UTC) - timedelta.resolution
"""The latest time in a record that has no time of arrival: on a topic that keeps the producers' time, on a broker that has
none. `groundswell topics apply` sets ``message.timestamp.type=LogAppendTime`` on every topic."""

COMMAND_AHEAD: Final = 1
"""How many days later than its arrival a command may be. Far more than clocks differ that are looked after."""

FACT_AHEAD: Final = COMMAND_AHEAD + 1
"""The same for what is written about a command that was accepted. It is more, because it must never be refused: the fact
arrives on another topic, perhaps at another broker, whose clock may be behind that of the first, or set back since."""

LOG_APPEND_TIME: Final = 1
"""The type of a timestamp that is the brokers'. All others are the producer's word."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_MILLISECONDS: Final = int((FAR_END - _EPOCH).total_seconds() * 1000)

_FIRST_DAY: Final = EARLIEST.toordinal() + 1
"""From this day of the calendar on, a time is not before `EARLIEST`, whatever its offset."""


class Stamped(Protocol):
    """A record, with the time that Kafka says of it."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def timestamp_type(self) -> int:
        """`LOG_APPEND_TIME`, or another."""


def arrival(timestamp: int | None, timestamp_type: int | None) -> int | None:
    """When the brokers took a record, by their clock, in milliseconds since 1970; None where they did not say.

    Args:
        timestamp: Of the record, or of the acknowledgement.
        timestamp_type: `LOG_APPEND_TIME`, or another.
    """
    return timestamp if timestamp_type == LOG_APPEND_TIME and timestamp is not None and timestamp > 0 else None


def as_time(milliseconds: int) -> datetime:
    """An `arrival` in UTC; `FAR_END` for all that is later, or no time of the calendar at all."""
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds < _MOST_MILLISECONDS else FAR_END


@lru_cache(maxsize=256)  # the records of a batch have one time of arrival
def latest_time(timestamp: int | None, timestamp_type: int | None, ahead: int) -> datetime:
    """The latest time that a record may speak of, in UTC.

    Args:
        timestamp: See `arrival`.
        timestamp_type: See `arrival`.
        ahead: days: `COMMAND_AHEAD` or `FACT_AHEAD`.
    """
    arrived = arrival(timestamp, timestamp_type)
    return FAR_END if arrived is None else min(FAR_END, as_time(arrived) + timedelta(days=ahead))


def calendar_utc(moment: datetime) -> datetime | None:
    """`moment` in UTC, or None if it is not in the years 1 to 9999 there: nobody could compare it, or show it.

    This is the bound of a petition's opening and closing times, which may lie as far away as anybody likes.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


def in_utc(moment: datetime, latest: datetime) -> datetime | None:
    """`moment` in UTC, or None if it is not from `EARLIEST` to `latest`. Takes every time that has an offset."""
    # Outside these years the conversion may leave the calendar: the year 1 begins in the year 0 further west.
    if not EARLIEST.year - 1 <= moment.year <= FAR_END.year + 1:
        return None
    moment = moment.astimezone(UTC)
    return moment if EARLIEST <= moment <= latest else None


@lru_cache(maxsize=256)
def _last_day(timestamp: int | None, timestamp_type: int | None, ahead: int) -> int:
    """Up to this day of the calendar, a time is not after the latest, whatever its offset."""
    return latest_time(timestamp, timestamp_type, ahead).toordinal() - 2


def fit(record: Stamped, ahead: int, *moments: datetime) -> bool:
    """Whether all `moments` in a record are from `EARLIEST` to the latest time that it may speak of.

    The day of the calendar decides for nearly all of them: that takes 40 ns, and a comparison across offsets ten times as
    long, which is seen where a hundred thousand facts are read a second.
    """
    last_day = _last_day(record.timestamp, record.timestamp_type, ahead)
    for moment in moments:
        if not _FIRST_DAY <= moment.toordinal() <= last_day:
            break
    else:
        return True
    latest = latest_time(record.timestamp, record.timestamp_type, ahead)
    return all(in_utc(moment, latest) is not None for moment in moments)
