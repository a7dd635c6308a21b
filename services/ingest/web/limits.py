"""How much one client may send, and how much is worked on at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import limits


class ClientRate:
    """A rate per client: GCRA, the generic cell rate algorithm (ITU-T I.371), which is a leaky bucket in one number.

    Each client has a *theoretical arrival time*: when its next request would be due if it kept exactly to the rate. A
    request may come up to one period early, so a whole period's amount may come at once, and then one per interval.

    The library `limits` reads the rate; its in-memory storage is not used, because it starts a thread every 10 ms that
    walks over all clients: 3 to 6 microseconds a request and a growing walk in a surge, against 0.4 and none here.

    Args:
        rate: As `limits.parse` reads it, e.g. ``120/minute``; ``off`` admits everyone.
        clock: Seconds, rising.
    """

    def __init__(self, rate: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._off = rate == "off"
        item = limits.parse("1/second" if self._off else rate)
        self._period = float(item.get_expiry())
        self._interval = self._period / item.amount
        # Two generations instead of a sweep: a client that was silent for a whole period has its full allowance again,
        # so what was last written before the previous turn can be forgotten all at once.
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._turned = clock()

    def wait(self, client: str) -> float:
        """Count one request of `client`. Returns 0.0, or the seconds after which one will be admitted."""
        if self._off:
            return 0.0
        now = self._clock()
        if now - self._turned >= self._period:
            self._old, self._young, self._turned = self._young, {}, now
        due = max(now, self._young.get(client) or self._old.get(client, 0.0))
        early = due + self._interval - now - self._period
        if early > 1e-9 * self._period:
            return early
        self._young[client] = due + self._interval
        return 0.0

    def overdrawn(self, client: str) -> float:
        """What `wait` would return, without counting: for what is only known afterwards to count, or not."""
        due = self._young.get(client) or self._old.get(client)
        if due is None:
            return 0.0
        early = due + self._interval - self._clock() - self._period
        return early if early > 1e-9 * self._period else 0.0


LINGER_SECONDS: Final = 1.0


class InFlight:
    """Counts what is in work, and says when it is too much. A plain counter: the hot path goes through it twice.

    Args:
        most: Requests in work at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= self._most

    async def linger(self) -> None:
        """Wait a moment with a refusal.

        A client that asks again as soon as it is turned away would otherwise be turned away ten times a second, and
        refusals would take the time in which signatures could be taken in: at three times the capacity, four fifths of it
        (the benchmark `overload`). How many may linger is bounded as connections are: each has one request at a time.
        """
        await asyncio.sleep(LINGER_SECONDS)

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
