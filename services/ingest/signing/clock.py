"""Compares this machine's clock with PostgreSQL's and Kafka's.

A signature carries the time of ingest's clock. verify refuses one that is a day off, so a signature stamped by a wrong clock
must never be answered with 202: the signer would not learn of the refusal.

* PostgreSQL is asked for the time every few seconds.
* Each acknowledgement of Kafka carries the time at which the brokers appended the record. No 202 is sent before that.

A reading is kept as the difference between the source's clock and our *monotonic* time, which does not change when the clock
is set. So a step of our own clock, in either direction, shows at once and without another reading, and nothing is published
with a time from a clock that has just been set wrong. This matters beyond the 202: a signature that verify refuses for its
time stays refused when it is sent again under the same `Idempotency-Key`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

import structlog

from services.ingest.metrics import IngestMetrics
from shared.contract.bounds import COMMAND_AHEAD, EARLIEST, FAR_END, LOG_APPEND_TIME, as_time, latest_time
from shared.postgres import Database
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)

Source = Literal["postgres", "kafka"]

NAMES: Final[dict[Source, str]] = {"postgres": "PostgreSQL", "kafka": "Kafka"}

_LOOK_SECONDS: Final = 0.5
_STEP_SECONDS: Final = 0.5
"""A larger change is a step: time synchronisation never slews a clock by so much at once."""

_READINGS: Final = 3
"""A clock that is set this many times in a row is treated as wrong."""

_ASK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0

_KEEP_SECONDS: Final = 60.0
"""An older reading is ignored. So a broker with a wrong clock stops ingest for this long, until the next acknowledgement
shows whether that clock is right again."""

_SHARP_SECONDS: Final = 1.0
"""An answer that took longer, from a source that stalls, does not replace a more precise one."""

_IN_WORK_SECONDS: Final = 30.0
"""No request takes longer: ten seconds for its body, and ten for its acknowledgement."""

_NOTHING: Final = "nothing is accepted until it is right"

_ASK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"

_FIRST, _LAST = EARLIEST.timestamp(), FAR_END.timestamp()


@dataclass(frozen=True, slots=True)
class _Reading:
    """A reading of a source's clock. All times are in seconds."""

    ahead: float
    """The source's clock minus our monotonic time."""
    unsure: float
    """Uncertainty: the source read its clock at some time between question and answer."""
    at: float
    """The monotonic time of the answer."""


class Clock:
    """Compares this machine's clock with those of the sources.

    Args:
        metrics: The metrics of ingest.
        tolerance: Seconds by which the clocks may differ.
        wall: Returns the clock's time, in seconds since 1970.
        monotonic: Returns monotonic seconds.
    """

    def __init__(
        self,
        metrics: IngestMetrics,
        *,
        tolerance: float,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tolerance, self._wall, self._monotonic = tolerance, wall, monotonic
        self._readings: dict[Source, _Reading] = {}
        self._last_seen = 0.0
        self._offsets: dict[Source, float] = {}
        self._gauges = {source: metrics.clock_offset_seconds.labels(source=source) for source in NAMES}
        for gauge in self._gauges.values():
            gauge.set(float("nan"))
        self.wrong = False
        """Whether the clock is known to be wrong; an attribute, because every signature reads it."""
        self.look()

    def told(self, source: Source, theirs: float, asked: float, answered: float) -> None:
        """Take in a source's time.

        Args:
            source: The source.
            theirs: The source's time, in seconds since 1970, at some moment between `asked` and `answered`.
            asked: Monotonic time of the question.
            answered: Monotonic time of the answer.
        """
        unsure = (answered - asked) / 2
        known = self._readings.get(source)
        if known is not None and unsure > max(_SHARP_SECONDS, known.unsure) and self._is_fresh(known):
            return
        self._readings[source] = _Reading(theirs - (asked + answered) / 2, unsure, answered)
        self.look()

    def appended(self, milliseconds: int, sent: float, acknowledged: float) -> None:
        """Take in the time at which the brokers appended a batch, as `EventProducer` reports it.

        Args:
            milliseconds: The brokers' time, since 1970.
            sent: Monotonic time of sending, in seconds.
            acknowledged: Monotonic time of the acknowledgement, in seconds.
        """
        self.told("kafka", milliseconds / 1000, sent, acknowledged)

    def look(self) -> bool:
        """Compare the clocks now. Returns whether ours is wrong."""
        ours = self._last_seen = self._wall_before_monotonic()
        self._readings = {source: known for source, known in self._readings.items() if self._is_fresh(known)}
        self._offsets = {source: ours - known.ahead for source, known in self._readings.items()}
        for source, gauge in self._gauges.items():
            gauge.set(self._offsets.get(source, float("nan")))
        wrong = not self._possible() or any(
            abs(offset) - self._readings[source].unsure > self._tolerance for source, offset in self._offsets.items()
        )
        if wrong is not self.wrong:
            self.wrong = wrong
            offsets = {source: round(offset, 1) for source, offset in self._offsets.items()}
            if wrong:
                log.error("clock_wrong", ahead_of=offsets)
            else:
                log.info("clock_right", ahead_of=offsets)
        return wrong

    def moment(self) -> datetime | None:
        """Now, in UTC; None if the clock is wrong. Takes less than a microsecond.

        The clock is read once, and the checked time is returned: it might be set between two readings.
        """
        for _ in range(_READINGS):
            now = self._wall()
            if abs(now - self._monotonic() - self._last_seen) <= _STEP_SECONDS:
                return None if self.wrong else datetime.fromtimestamp(now, UTC)
            self.look()  # the clock was set, or the process was frozen between the two readings
        return None

    def stamped(self, moment: datetime, arrival: int | None) -> bool:
        """Whether a record with the time `moment` may be answered with 202: verify will accept it, and the clock was right.

        Notices also a clock that was wrong only briefly, between two comparisons.

        Args:
            moment: The record's time, in UTC.
            arrival: When the brokers appended the record; see `shared.contract.bounds.arrival`.
        """
        earliest, latest = _span(arrival, self._tolerance)
        return earliest <= moment <= latest

    async def check(self) -> str | None:
        """Readiness check: what is wrong with the clock; None if it is right or not known to be wrong."""
        if not self.look():
            return None
        if not self._offsets:
            return f"the clock is in the year {time.gmtime(self._wall()).tm_year}; {_NOTHING}"
        against = " and ".join(
            f"{self._compared(offset)} {NAMES[source]}'s" for source, offset in sorted(self._offsets.items())
        )
        return f"the clock is {against}; {_NOTHING}"

    async def watch(self) -> None:
        """Compare regularly. Runs until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def ask(self, database: Database) -> None:
        """Ask PostgreSQL for the time regularly. Runs until it is cancelled.

        Raises:
            Exception: a bug.
        """
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS), database.pool.acquire() as connection:
                    asked = self._monotonic()
                    theirs: float = await connection.fetchval(_ASK)
                    self.told("postgres", theirs, asked, self._monotonic())
            except Exception as error:
                # PostgreSQL is away: another check of /readyz reports it, and its last reading expires.
                if not is_transient(error):
                    raise
            await asyncio.sleep(_ASK_SECONDS if "postgres" in self._readings else _LOOK_SECONDS)

    def _compared(self, offset: float) -> str:
        if abs(offset) <= self._tolerance:
            return "right by"
        return f"{abs(offset):,.0f} s {'ahead of' if offset > 0 else 'behind'}"

    def _is_fresh(self, reading: _Reading) -> bool:
        return self._monotonic() - reading.at < _KEEP_SECONDS

    def _possible(self) -> bool:
        return _FIRST <= self._wall() <= _LAST

    def _wall_before_monotonic(self) -> float:
        """The wall clock minus monotonic time. They cannot be read at once, and the process may be frozen in between."""
        difference = 0.0
        for _ in range(3):
            before = self._monotonic()
            difference = self._wall() - before
            if self._monotonic() - before < _SHARP_SECONDS:
                break
        return difference


@lru_cache(maxsize=256)  # the records of a batch share one time of arrival
def _span(arrival: int | None, tolerance: float) -> tuple[datetime, datetime]:
    """The earliest and latest time that a record may have which arrived then: never more than verify accepts."""
    latest = latest_time(arrival, LOG_APPEND_TIME, COMMAND_AHEAD)
    if arrival is None:
        return EARLIEST, latest
    arrived = as_time(arrival)
    earliest = arrived - timedelta(seconds=tolerance + _IN_WORK_SECONDS)
    return max(EARLIEST, earliest), min(latest, arrived + timedelta(seconds=tolerance))
