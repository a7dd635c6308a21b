"""Whether this machine's clock is right, by PostgreSQL's clock and Kafka's.

A signature carries the time of ingest's clock. verify refuses one of another day, so what a wrong clock stamps must never be
answered with 202: the signer would not hear of the refusal.

* PostgreSQL is asked for the time every few seconds.
* Kafka tells it with every acknowledgement: the time at which the brokers took the record. No 202 goes out before that.

An answer is kept as the difference between the source's clock and our *monotonic* time, which runs on when the clock is set.
So a step of our own clock shows at once, in either direction, without another question: nothing is published that a clock
stamps which has just been set wrong. That matters beyond the 202: a signature that verify refuses for its time stays refused
when it is sent again under the same `Idempotency-Key`.
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
"""No clock is led back to the true time by so much at once: it is set."""

_READINGS: Final = 3
"""A clock that is set so often in a row cannot be told to be right."""

_ASK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0

_KEEP_SECONDS: Final = 60.0
"""A source that has said nothing for so long has no say. It is also how long a wrong clock of a broker keeps ingest from
accepting, before the next acknowledgement tells whether it is right by now."""

_SHARP_SECONDS: Final = 1.0
"""An answer that took longer, from a source that stalls, does not replace a sharper one."""

_IN_WORK_SECONDS: Final = 30.0
"""No request is in work for longer: its body has ten seconds, and its acknowledgement ten more."""

_NOTHING: Final = "nothing is accepted until it is right"

_ASK: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"

_FIRST, _LAST = EARLIEST.timestamp(), FAR_END.timestamp()


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a source said, in seconds."""

    ahead: float
    """Of the source's clock before our monotonic time."""
    unsure: float
    """The source looked at its clock some time between the question and the answer."""
    at: float
    """Monotonic time of the answer."""


class Clock:
    """Compares this machine's clock with others.

    Args:
        tolerance: Seconds that it may be off.
        wall: The clock, in seconds since 1970.
        monotonic: Seconds, rising.
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
        """Whether the clock is known to be wrong: one look at an attribute for every signature."""
        self.look()

    def told(self, source: Source, theirs: float, asked: float, answered: float) -> None:
        """Take in what a source said.

        Args:
            theirs: The source's time, in seconds since 1970, of a moment after `asked` and before `answered`.
            asked: Monotonic time.
            answered: Monotonic time.
        """
        unsure = (answered - asked) / 2
        known = self._readings.get(source)
        if known is not None and unsure > max(_SHARP_SECONDS, known.unsure) and self._is_fresh(known):
            return
        self._readings[source] = _Reading(theirs - (asked + answered) / 2, unsure, answered)
        self.look()

    def appended(self, milliseconds: int, sent: float, acknowledged: float) -> None:
        """Take in when the brokers took a batch, as `shared.kafka.producing.producer.EventProducer` reports it."""
        self.told("kafka", milliseconds / 1000, sent, acknowledged)

    def look(self) -> bool:
        """Compare now. Returns whether the clock is wrong."""
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
        """Now, in UTC; None where the clock is wrong. One look costs less than a microsecond.

        The time that is checked is the time that is returned: between two readings of the clock it may be set.
        """
        for _ in range(_READINGS):
            now = self._wall()
            if abs(now - self._monotonic() - self._last_seen) <= _STEP_SECONDS:
                return None if self.wrong else datetime.fromtimestamp(now, UTC)
            self.look()  # it was set, or we were frozen between the two questions
        return None

    def stamped(self, moment: datetime, arrival: int | None) -> bool:
        """Whether a record that says `moment` may be answered with 202: verify will take it, and the clock was right.

        Also where the clock was wrong only for a moment, between two looks at it.

        Args:
            moment: In UTC.
            arrival: When the brokers took the record; see `shared.contract.bounds.arrival`.
        """
        earliest, latest = _span(arrival, self._tolerance)
        return earliest <= moment <= latest

    async def check(self) -> str | None:
        """Readiness: is the clock right, as far as it is known?"""
        if not self.look():
            return None
        if not self._offsets:
            return f"the clock is in the year {time.gmtime(self._wall()).tm_year}; {_NOTHING}"
        against = " and ".join(
            f"{self._compared(offset)} {NAMES[source]}'s" for source, offset in sorted(self._offsets.items())
        )
        return f"the clock is {against}; {_NOTHING}"

    async def watch(self) -> None:
        """Keep looking. Runs until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def ask(self, database: Database) -> None:
        """Keep asking PostgreSQL. Runs until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS), database.pool.acquire() as connection:
                    asked = self._monotonic()
                    theirs: float = await connection.fetchval(_ASK)
                    self.told("postgres", theirs, asked, self._monotonic())
            except Exception as error:
                # It is away: /readyz says so by another check, and what it said last grows old.
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
        """The two clocks cannot be read at once; a process that was frozen in between would find its clock wrong."""
        difference = 0.0
        for _ in range(3):
            before = self._monotonic()
            difference = self._wall() - before
            if self._monotonic() - before < _SHARP_SECONDS:
                break
        return difference


@lru_cache(maxsize=256)  # the records of a batch have one time of arrival
def _span(arrival: int | None, tolerance: float) -> tuple[datetime, datetime]:
    """From when to when a record may be that the brokers took then: never more than verify takes."""
    latest = latest_time(arrival, LOG_APPEND_TIME, COMMAND_AHEAD)
    if arrival is None:
        return EARLIEST, latest
    arrived = as_time(arrival)
    earliest = arrived - timedelta(seconds=tolerance + _IN_WORK_SECONDS)
    return max(EARLIEST, earliest), min(latest, arrived + timedelta(seconds=tolerance))
