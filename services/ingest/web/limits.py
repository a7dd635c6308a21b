"""Rate limits of clients, and the bound on requests in progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import limits


class ClientRate:
    """A rate limit per client: GCRA, the generic cell rate algorithm (ITU-T I.371), a leaky bucket in one number.

    Each client has a *theoretical arrival time*: when its next request would be due if it kept exactly to the rate. A
    request may come up to one period early, so a whole period's amount may come at once, and then one per interval.

    The library `limits` parses the rate; its in-memory storage is not used, because it starts a thread every 10 ms that
    iterates over all clients: 3 to 6 microseconds a request, and more the longer a surge lasts, against 0.4 here.

    Args:
        rate: In the format of `limits.parse`, e.g. ``120/minute``; ``off`` admits all requests.
        clock: Returns monotonic seconds.
    """

    def __init__(self, rate: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._off = rate == "off"
        item = limits.parse("1/second" if self._off else rate)
        self._period = float(item.get_expiry())
        self._interval = self._period / item.amount
        # Two generations instead of a sweep: a client that sent nothing for a whole period has its full allowance again,
        # so entries last written before the previous generation can be dropped all at once.
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._turned = clock()

    def wait(self, client: str) -> float:
        """Count one request of `client`. Returns 0.0 if it is admitted, else the seconds until one will be."""
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
        """What `wait` would return, without counting: for requests of which it is known only later whether they count."""
        due = self._young.get(client) or self._old.get(client)
        if due is None:
            return 0.0
        early = due + self._interval - self._clock() - self._period
        return early if early > 1e-9 * self._period else 0.0


TARPIT_SECONDS: Final = 1.0


class InFlight:
    """Counts the requests in progress. A plain counter, because the hot path uses it twice.

    Args:
        most: Most requests in progress at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= self._most

    async def tarpit(self) -> None:
        """Delay a refusal (tarpit).

        A client that retries at once would otherwise be refused ten times a second, and refusals would take the time of
        signatures: at three times the capacity, four fifths of it (the benchmark `overload`). The number of delayed
        refusals is bounded by that of connections, because each has one request at a time.
        """
        await asyncio.sleep(TARPIT_SECONDS)

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1
