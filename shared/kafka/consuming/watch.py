"""Background tasks of a batch consumer: it keeps its membership in the group, measures lag, and detects stalls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from shared.kafka.consuming.metrics import ConsumerMetrics

log = structlog.get_logger(__name__)

_KEEPALIVE_SECONDS = 30.0
"""aiokafka removes a consumer from its group after max_poll_interval_ms (5 minutes) without a poll. A poll for no
partition, ten times as often as needed, keeps a consumer that holds a batch in its group."""

_MEASURE_SECONDS = 2.0
_ANSWER_SECONDS = 2.0

_SILENT_SECONDS = 5.0
"""Kafka is away if no measurement was answered for this time: two in a row, so that one slow answer does not count."""

_STALLED_SECONDS = 10.0
"""Records that wait this long without a current batch are not being delivered: the process cannot unpack a batch, or the
client's background tasks have died. FastStream logs such errors and polls on for ever."""


class ConsumerWatch:
    """Watches one consumer.

    Args:
        topic: The topic's name, for the log.
        client: Returns the running client; None before the broker has started and after it has stopped.
        busy: Returns whether a batch is in hand, or consumption was stopped on purpose.
        metrics: The consumer's metrics.
    """

    def __init__(
        self,
        topic: str,
        *,
        client: Callable[[], AIOKafkaConsumer | None],
        busy: Callable[[], bool],
        metrics: ConsumerMetrics,
    ) -> None:
        self._topic, self._client, self._busy, self._metrics = topic, client, busy, metrics
        self._committed: dict[TopicPartition, int] = {}
        self._owning = False
        self._assignment = 0  # rises when partitions are revoked: answers to earlier requests are then obsolete
        self._moved = (time.monotonic(), 0)  # when the positions last moved, and their sum
        self._answered = time.monotonic()
        self.away: str | None = None
        """The error while Kafka does not answer; None otherwise. An idle consumer would not notice for minutes."""
        self.stalled: str | None = None
        """The error while records wait and are not delivered; None otherwise."""
        self.lag: int | None = None
        """Uncommitted records of all assigned partitions, as last measured; None while unknown."""

    def committed(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note the committed offsets."""
        self._committed.update(ends)

    def take_over(self) -> None:
        """Start to measure: this process owns the client's partitions now."""
        self._owning, self._answered = True, time.monotonic()

    def let_go(self) -> None:
        """Stop measuring: the partitions were revoked, although the client still lists them for a while."""
        self._owning, self.lag = False, None
        self.away = self.stalled = None  # these concerned the previous assignment
        self._assignment += 1
        self._committed.clear()
        self._metrics.lag.clear()

    async def keep_alive(self) -> None:
        """Poll for no partition while a batch is in hand. Runs until cancelled."""
        nothing = TopicPartition("", 0)
        while True:
            await asyncio.sleep(_KEEPALIVE_SECONDS)
            client = self._client()
            if client is None or not self._busy():
                continue
            try:
                await client.getmany(nothing, timeout_ms=0)
            except (KafkaError, ConsumerStoppedError) as error:
                # The client raises its errors with the group at the next poll.
                log.warning("group_trouble", topic=self._topic, cause=type(error).__name__)

    async def measure(self) -> None:
        """Measure lag and progress every two seconds. Runs until cancelled."""
        while True:
            await asyncio.sleep(_MEASURE_SECONDS)
            client = self._client()
            if client is None or not self._owning:
                continue
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._measure(client, sorted(client.assignment()))
            except (
                KafkaError,
                TimeoutError,
            ) as error:  # Kafka is away, or there was a rebalance; the next round retries
                self.lag = None
                log.debug("lag_unknown", topic=self._topic, cause=type(error).__name__)
                if time.monotonic() - self._answered > _SILENT_SECONDS:
                    self.away = f"no answer: {type(error).__name__}"
            else:
                self._answered, self.away = time.monotonic(), None

    async def _measure(self, client: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        assignment = self._assignment
        # From the brokers, because the client's high-water marks become stale while a batch is held. The embedded broker
        # answers with the start of the last batch, so the client's mark may be closer.
        ends = dict(await client.end_offsets(partitions))
        for tp in client.assignment() & set(partitions):  # a rebalance may have taken some while the brokers answered
            ends[tp] = max(ends[tp], client.highwater(tp) or 0)
        starts = await self._starts(client, [tp for tp in partitions if tp not in self._committed])
        if assignment != self._assignment:
            return
        self._committed = {**starts, **self._committed}
        lags = {tp: max(0, ends[tp] - self._committed[tp]) for tp in partitions}
        for tp, lag in lags.items():
            self._metrics.lag.labels(partition=str(tp.partition)).set(lag)
        self.lag = sum(lags.values())
        position = sum([await client.position(tp) for tp in partitions])
        self._note_progress(position, waiting=sum(ends.values()) - position)

    @staticmethod
    async def _starts(client: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the group's committed offsets of partitions in which this process has committed nothing yet."""
        committed = {tp: await client.committed(tp) for tp in partitions}
        never = [tp for tp, offset in committed.items() if offset is None]
        # In one request: each request waits for the running fetch.
        beginnings = dict(await client.beginning_offsets(never)) if never else {}
        return {tp: beginnings[tp] if offset is None else offset for tp, offset in committed.items()}

    def _note_progress(self, position: int, *, waiting: int) -> None:
        moved_at, before = self._moved
        if waiting <= 0 or position != before or self._busy():
            self._moved, self.stalled = (time.monotonic(), position), None
        elif time.monotonic() - moved_at > _STALLED_SECONDS and not self.stalled:
            self.stalled = f"{waiting} records wait and are not delivered; the log says why"
            log.error("consumer_stalled", topic=self._topic, records=waiting)
