"""What runs beside a batch consumer: it keeps the place in the group, measures the lag, and notices when nothing moves."""

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
"""aiokafka takes a consumer out of its group after max_poll_interval_ms (5 minutes) without a poll. A poll for no
partition, ten times as often as needed, says that a batch that is held is not a consumer that is stuck."""

_MEASURE_SECONDS = 2.0
_ANSWER_SECONDS = 2.0

_SILENT_SECONDS = 5.0
"""Kafka is away once it has answered no measurement for so long: two in a row, so that one slow answer does not count."""

_STALLED_SECONDS = 10.0
"""Records that wait this long while no batch is in hand are not being delivered: a batch is packed in a way that this
process cannot read, or the client's background tasks have died. FastStream logs such errors and polls on for ever."""


class ConsumerWatch:
    """Watches one consumer.

    Args:
        topic: For the logs.
        client: The running client; None before the broker has started and after it has stopped.
        busy: Whether a batch is in hand, or consumption was stopped on purpose.
        metrics: Where the lag is shown.
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
        self._assignment = 0  # rises when partitions are let go: what was asked before says nothing any more
        self._moved = (time.monotonic(), 0)  # when the positions last moved, and their sum
        self._answered = time.monotonic()
        self.away: str | None = None
        """What is wrong while Kafka does not answer. An idle consumer would not notice it for minutes."""
        self.stalled: str | None = None
        """What is wrong while records wait that are not delivered."""
        self.lag: int | None = None
        """Records that are not committed yet, of all partitions, as last measured; None while that is not known."""

    def committed(self, ends: Mapping[TopicPartition, int]) -> None:
        """Note what was committed."""
        self._committed.update(ends)

    def take_over(self) -> None:
        """The client's partitions are this process's now."""
        self._owning, self._answered = True, time.monotonic()

    def let_go(self) -> None:
        """The partitions are somebody else's: show no lag for them, although the client knows them a while longer."""
        self._owning, self.lag = False, None
        self.away = self.stalled = None  # nobody measures any more; what was found was about another assignment
        self._assignment += 1
        self._committed.clear()
        self._metrics.lag.clear()

    async def keep_alive(self) -> None:
        """Poll for nothing while a batch is in hand. Runs until it is cancelled."""
        nothing = TopicPartition("", 0)
        while True:
            await asyncio.sleep(_KEEPALIVE_SECONDS)
            client = self._client()
            if client is None or not self._busy():
                continue
            try:
                await client.getmany(nothing, timeout_ms=0)
            except (KafkaError, ConsumerStoppedError) as error:
                # The client reports its troubles with the group to whoever polls next.
                log.warning("group_trouble", topic=self._topic, cause=type(error).__name__)

    async def measure(self) -> None:
        """Measure lag and progress again and again. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(_MEASURE_SECONDS)
            client = self._client()
            if client is None or not self._owning:
                continue
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._measure(client, sorted(client.assignment()))
            except (KafkaError, TimeoutError) as error:  # Kafka is away, or a rebalance came: measured again soon
                self.lag = None
                log.debug("lag_unknown", topic=self._topic, cause=type(error).__name__)
                if time.monotonic() - self._answered > _SILENT_SECONDS:
                    self.away = f"no answer: {type(error).__name__}"
            else:
                self._answered, self.away = time.monotonic(), None

    async def _measure(self, client: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        assignment = self._assignment
        # Asked of the brokers: what the client remembers of the ends grows old while a batch is held. The embedded broker
        # answers with the start of the last batch, so what the client remembers may be nearer.
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
        """Where the group stands in partitions in which it has not committed through this process yet."""
        committed = {tp: await client.committed(tp) for tp in partitions}
        never = [tp for tp, offset in committed.items() if offset is None]
        # In one question: each waits behind the fetch that is under way.
        beginnings = dict(await client.beginning_offsets(never)) if never else {}
        return {tp: beginnings[tp] if offset is None else offset for tp, offset in committed.items()}

    def _note_progress(self, position: int, *, waiting: int) -> None:
        moved_at, before = self._moved
        if waiting <= 0 or position != before or self._busy():
            self._moved, self.stalled = (time.monotonic(), position), None
        elif time.monotonic() - moved_at > _STALLED_SECONDS and not self.stalled:
            self.stalled = f"{waiting} records wait and are not delivered; the log says why"
            log.error("consumer_stalled", topic=self._topic, records=waiting)
