"""Retries a step of a batch until it succeeds, as long as this process owns the batch's partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.runtime.backoff import Backoff, jittered
from shared.runtime.failures import Collision, is_transient

log = structlog.get_logger(__name__)

_SLOW_SECONDS = 10.0
"""A step of a batch that takes longer is reported as held: aiokafka's commit and its idempotent producer retry without
limit and without an error."""

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 5.0
"""Seconds before the first retry, and the maximum wait between two tries."""

MOST_COLLISIONS: Final = 10
"""A step fails after this many collisions in a row. The other writer's rows are committed when we collide with them, so the
next try sees them: two or three collisions are usual. Ten take about 16 seconds, longer than a session timeout, so the
group has decided by then who owns the partition."""


class BatchAbandoned(Exception):
    """The current batch was given up: its partitions were revoked or the service stops. Nothing was committed."""


class Holding:
    """Retries steps while their errors are transient, and reports what is held.

    Args:
        topic: The topic's name, for the log.
        metrics: The consumer's metrics.
    """

    def __init__(self, topic: str, metrics: ConsumerMetrics) -> None:
        self._topic, self._metrics = topic, metrics
        self._step: str | None = None
        self._around: str | None = None
        self.stopping = asyncio.Event()
        self.handed_over = asyncio.Event()
        self.epoch = 0
        """Rises with every revocation. A batch of an older epoch must not commit."""

    @property
    def why(self) -> str | None:
        """What is held and why; None if nothing is."""
        return self._step or self._around

    async def until_done(
        self, step: Callable[[], Awaitable[None]], what: str, epoch: int, *, most_collisions: int = MOST_COLLISIONS
    ) -> None:
        """Run `step` until it succeeds, as long as its errors are transient and this process owns the partitions.

        Raises:
            BatchAbandoned: the partitions are revoked, or the service stops.
            Collision: `step` collided `most_collisions` times.
            Exception: an error of `step` that is not transient.
        """
        backoff, failures, collisions = Backoff(BACKOFF_FIRST, BACKOFF_MOST), 0, 0
        while True:
            slow = asyncio.get_running_loop().call_later(
                _SLOW_SECONDS, self._say, f"{what} held: not done within {_SLOW_SECONDS:g} s"
            )
            try:
                await step()
            except Exception as error:
                failures += 1
                collisions += isinstance(error, Collision)
                if not is_transient(error) or collisions >= most_collisions:
                    self._say(None)
                    raise
                wait = backoff.after(failures)
                self._say(f"{what} held: {type(error).__name__}")
                self._metrics.holds.labels(cause=type(error).__name__).inc()
                log.warning("batch_held", topic=self._topic, step=what, cause=type(error).__name__, wait=wait)
                await self.pause(wait, epoch)
            else:
                self._say(None)
                return
            finally:
                slow.cancel()

    async def pause(self, seconds: float, epoch: int) -> None:
        """Wait for `seconds`, with jitter.

        Raises:
            BatchAbandoned: at once when the partitions are revoked or the service stops.
        """
        waits = [asyncio.create_task(self.stopping.wait()), asyncio.create_task(self.handed_over.wait())]
        try:
            await asyncio.wait(
                waits,
                timeout=jittered(seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for wait in waits:
                wait.cancel()
        self.still_ours(epoch)

    def still_ours(self, epoch: int) -> None:
        """Check that this process still owns the batch's partitions and does not stop.

        Raises:
            BatchAbandoned: the check fails.
        """
        if self.stopping.is_set() or self.handed_over.is_set() or epoch != self.epoch:
            self._say(None)
            raise BatchAbandoned("the service stops" if self.stopping.is_set() else "the partitions are handed over")

    def say_around(self, why: str | None) -> None:
        """Set what is held during several steps; None after they are done."""
        self._around = why
        self._tell()

    def _say(self, why: str | None) -> None:
        self._step = why
        self._tell()

    def _tell(self) -> None:
        self._metrics.held.set(self.why is not None)
