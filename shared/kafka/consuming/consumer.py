"""The batch consumer: it adds the failure rules to a batch subscriber (`RawSubscriber`), and nothing else.

Contract
--------
`process` gets the valid records of one poll, in order within each partition. When it returns, its effects are durable
and everything it published is acknowledged; only then are the offsets committed, explicitly, as ``{partition: last + 1}``.
If the process is killed before that, the records are redelivered: `process` must be idempotent.

* **invalid** (`decode` raises `InvalidRecord`, or the Kafka client cannot unpack it: `shared.kafka.fetching.unpacking`): the
  record becomes a dead letter, acknowledged before the offset passes it; the other records are not affected. The same
  applies to a record for which `decode` raises anything else: that is a bug, but it concerns one record only.
* **transient** (`is_transient`): the position is held and the same batch is retried with backoff. Meanwhile the consumer
  stays in its group and its readiness check fails. It gives the batch up only when its partitions are revoked or the
  service stops.
* **about the data** (`SetAside`, `is_about_the_data`, and a `Collision` that persists): the records that cannot be applied
  become dead letters, acknowledged, and the rest of the batch is processed (`shared.kafka.consuming.isolation`).
* **bug** (anything else): nothing is committed and the process ends with exit code 1.

When too many records become dead letters, consumption stops with its position held (`shared.kafka.consuming.losses`).

A rebalance or a stop waits for the current batch, at most for the drain budget. A batch that is unfinished then is not
committed, and the next owner repeats it.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata

from shared.contract.topics import Topic
from shared.kafka.consuming.dead_letters import DeadLetter, publish_dead_letters
from shared.kafka.consuming.holding import BatchAbandoned, Holding
from shared.kafka.consuming.isolation import Isolation, Item
from shared.kafka.consuming.losses import Losses
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.consuming.watch import ConsumerWatch
from shared.kafka.fetching.unreadable import Unreadable, log_unreadable, refusing
from shared.kafka.producing.producer import EventProducer
from shared.kafka.registration import FastStreamBroker, RawSubscriber, Records, document_writes
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import CANNOT_BE_READ, InvalidRecord, without_content
from shared.runtime.readiness import Waiting
from shared.runtime.settings import CommonSettings

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerLimits:
    """How much a consumer reads at once, and when it stops."""

    max_records: int = 2_000
    """Maximum records of a batch: PostgreSQL's set-based inserts are most efficient with 100 to 2,000 rows."""
    batch_timeout_ms: int = 20
    """Maximum wait for a first record. FastStream also sleeps for this time after an empty poll, so it bounds the latency
    at low traffic."""
    fetch_min_bytes: int = 16 * 1024
    """The brokers answer a fetch when this much is available, some hundred signatures, …"""
    fetch_max_wait_ms: int = 20
    """… or after this time. The wait saves a third of the cost of a signature at 1,000 a second
    (docs/performance-notes.md)."""
    dlq_ratio_limit: float = 0.5
    """Maximum fraction of the last `dlq_window` records that may become dead letters."""
    dlq_window: int = 1_000
    dlq_run: int = 50
    """Maximum number of consecutive records that may become dead letters because of unforeseen errors. A client that
    repeats one invalid request stays below it; a constraint that refuses everything is found within a minute."""


class BatchConsumer(ConsumerRebalanceListener, Generic[T]):
    """See the module's contract.

    Args:
        topic: The topic to read; dead letters go to its DLQ.
        group: The consumer group.
        decode: Reads one record, or raises `InvalidRecord`.
        process: Processes a batch; see the contract.
        producer: Publishes dead letters.
        metrics: The consumer's metrics.
        settings: Provides the session timeout and the drain budget.
        on_bug: Ends the process.
        limits: Batch sizes, waits, and when to stop.
        on_assigned: Called with all partitions that this process owns now, before their first batch. The group waits for
            it, so it may only change memory; any exception is a bug.
        on_revoked: Called with the partitions that were revoked, after their last batch; the same rules apply.
        waits_for: The names of the readiness checks of everything that `process` needs besides Kafka. While a batch is
            held, /readyz says which of them are away.
    """

    def __init__(
        self,
        *,
        topic: Topic,
        group: str,
        decode: Callable[[ConsumerRecord[Any, Any]], T],
        process: Callable[[Sequence[T]], Awaitable[None]],
        producer: EventProducer,
        metrics: ConsumerMetrics,
        settings: CommonSettings,
        on_bug: Callable[[BaseException], None],
        limits: ConsumerLimits = ConsumerLimits(),
        on_assigned: Callable[[set[int]], Awaitable[None]] | None = None,
        on_revoked: Callable[[set[int]], Awaitable[None]] | None = None,
        waits_for: Sequence[str] = (),
    ) -> None:
        self._topic, self._group = topic, group
        self._decode, self._process = refusing(decode, self._note_unreadable), process
        self._producer, self._metrics, self._settings = producer, metrics, settings
        self._on_bug, self._limits = on_bug, limits
        self._after_assigned, self._after_revoked = on_assigned, on_revoked
        self._waits_for = ("kafka", *waits_for)
        self._subscriber: RawSubscriber | None = None
        self._in_hand = asyncio.Lock()  # held while a batch is worked on; a rebalance waits for it
        self._assigned: set[int] | None = None
        self._holding = Holding(topic.name, metrics)
        self._losses = Losses(topic.name, ratio=limits.dlq_ratio_limit, window=limits.dlq_window, run=limits.dlq_run)
        self._isolation = Isolation(
            topic.name, process=self._apply, set_aside=self._set_aside, holding=self._holding, metrics=metrics
        )
        self._stopped_for_good: str | None = None
        self._watch = ConsumerWatch(
            topic.name,
            client=lambda: self._client,
            busy=lambda: self._in_hand.locked() or self._stopped_for_good is not None,
            metrics=metrics,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------ start and stop

    def subscribe(self, broker: FastStreamBroker) -> None:
        """Register the subscriber. Call before the broker starts."""
        self._subscriber = RawSubscriber(
            broker,
            self._topic,
            self._on_batch,
            on_bug=self._crash,
            reader=self._group,
            group=self._group,
            start="earliest",
            max_records=self._limits.max_records,
            batch_timeout_ms=self._limits.batch_timeout_ms,
            session_timeout_ms=self._settings.kafka_session_timeout_ms,
            heartbeat_interval_ms=self._settings.kafka_session_timeout_ms // 5,
            # How long the group waits in a rebalance for a member to finish its batch. aiokafka's default is the session
            # timeout, which would cut the drain budget short: the group would go on without the member.
            rebalance_timeout_ms=int(self._settings.drain_seconds * 1000) + self._settings.kafka_session_timeout_ms,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            fetch_min_bytes=self._limits.fetch_min_bytes,
            fetch_max_wait_ms=self._limits.fetch_max_wait_ms,
            listener=self,
        )
        document_writes(broker, self._topic.dlq)

    @property
    def _client(self) -> AIOKafkaConsumer | None:
        return None if self._subscriber is None else self._subscriber.consumer

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        client = self._client
        assert client is not None, "nothing is consumed before the broker has started"
        return client

    def _note_unreadable(self, record: Unreadable) -> None:
        if record.is_batch:
            self._metrics.unreadable_batches.inc()
        log_unreadable(record)

    def drain(self) -> None:
        """Begin to stop: the current batch may finish, but nothing is held or retried."""
        self._holding.stopping.set()
        for task in self._tasks:
            task.cancel()

    def why_not_consuming(self) -> str | None:
        """Return why this consumer does not consume, other than Kafka being away; None if it consumes."""
        if self._stopped_for_good:
            return self._stopped_for_good
        if self._holding.why:
            return self._holding.why
        if self._assigned is None or self._client is None:
            return "no partitions assigned yet"
        return self._watch.stalled

    async def check(self) -> str | Waiting | None:
        """Readiness check: it consumes. `check_brokers` reports whether Kafka answers."""
        why = self.why_not_consuming()
        if why is None or self._stopped_for_good:
            return why
        return Waiting(why, self._waits_for)

    async def check_brokers(self) -> str | None:
        """Readiness check: the brokers answer both the producer and this consumer."""
        return await self._producer.check() or self._watch.away

    @property
    def lag(self) -> int | None:
        """Records of the assigned partitions that are not committed yet; None while unknown."""
        return self._watch.lag

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that this instance owns now."""
        return frozenset(self._assigned or ())

    # ------------------------------------------------------------------------------------------------------ rebalance

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the current batch, at most for the drain budget, then give up the partitions."""
        self._holding.handed_over.set()
        await failpoint("consumer.revoking")
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                async with self._in_hand:
                    pass
        except TimeoutError:
            # From here on the current batch is a zombie's. It may finish: fences make it harmless, and the epoch prevents
            # it from committing.
            log.warning("batch_outlived_rebalance", topic=self._topic.name, seconds=self._settings.drain_seconds)
        self._holding.epoch += 1
        self._assigned = None
        self._watch.let_go()
        if self._after_revoked is not None and revoked:
            await self._call(self._after_revoked, {tp.partition for tp in revoked})

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start to work on the assigned partitions."""
        self._holding.handed_over.clear()
        self._assigned = {tp.partition for tp in assigned}
        self._watch.take_over()
        self._metrics.rebalances.inc()
        await failpoint("consumer.assigned")
        if not self._tasks:
            self._tasks = {asyncio.create_task(work) for work in (self._watch.keep_alive(), self._watch.measure())}
            for task in self._tasks:
                task.add_done_callback(self._watch_ended)
        log.info("partitions_assigned", topic=self._topic.name, partitions=sorted(self._assigned))
        if self._after_assigned is not None:
            await self._call(self._after_assigned, set(self._assigned))

    async def _call(self, hook: Callable[[set[int]], Awaitable[None]], partitions: set[int]) -> None:
        try:
            await hook(partitions)
        except Exception as bug:  # noqa: BLE001  aiokafka would log it and go on
            self._crash(bug)

    # ---------------------------------------------------------------------------------------------------- the batch

    async def _on_batch(self, records: Records) -> None:
        if self._holding.stopping.is_set():
            return  # not committed, so it comes again
        if self._stopped_for_good:
            self._consumer.pause(*self._consumer.assignment())  # or it would read to the end and drop every record
            return
        async with self._in_hand:
            epoch, started = self._holding.epoch, time.perf_counter()
            try:
                if records := await self._still_ours(records):
                    await self._handle(records, epoch)
            except BatchAbandoned as reason:
                self._metrics.abandoned.inc()
                log.info("batch_abandoned", topic=self._topic.name, records=len(records), reason=str(reason))
            except asyncio.CancelledError:
                if not self._holding.stopping.is_set():
                    raise
                # FastStream cancels a batch that outlasts the drain budget. This is intended and not logged as an error.
                self._metrics.abandoned.inc()
                log.info("batch_abandoned", topic=self._topic.name, records=len(records), reason="the service stops")
            except Exception as bug:  # noqa: BLE001  the rule for bugs: crash, commit nothing
                self._crash(bug)
            else:
                if records:
                    self._metrics.batch_records.observe(len(records))
                    self._metrics.batch_seconds.observe(time.perf_counter() - started)

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._crash(bug)

    def _crash(self, bug: BaseException) -> None:
        self._stopped_for_good = f"stopped by a bug: {type(bug).__name__}"
        self._metrics.bugs.inc()
        self._on_bug(bug)

    async def _still_ours(self, records: Records) -> Records:
        """Return the records of partitions that were not reassigned since the poll: a rebalance may have run meanwhile.

        The client's position decides, not `_assigned`, which may be older or newer than the poll. If the position is not
        after a partition's records, or gone, the partition was reset to the committed offset, and its owner reads them
        again. If it is after them, they must be processed: otherwise the next commit would lose them.
        """
        last = {record.partition: record for record in records}
        current = set()
        for partition, record in last.items():
            try:
                position = await self._consumer.position(TopicPartition(record.topic, partition))
            except IllegalStateError:
                continue
            if position > record.offset:
                current.add(partition)
        return tuple(record for record in records if record.partition in current)

    async def _handle(self, records: Records, epoch: int) -> None:
        valid, letters = self._decode_all(records)
        if letters:
            self._stop_when_too_many()
        await failpoint("consumer.decoded")
        if letters:
            await self._publish_dead_letters(letters, epoch)
            await failpoint("consumer.dead_letters_published")
        if valid:
            self._metrics.records.inc(await self._isolation.apply(valid, epoch))
        await failpoint("consumer.processed")
        await self._holding.until_done(lambda: self._commit(records, epoch), "commit", epoch)
        await failpoint("consumer.committed")

    def _decode_all(self, records: Records) -> tuple[list[Item[T]], list[DeadLetter]]:
        valid: list[Item[T]] = []
        letters: list[DeadLetter] = []
        lost = [False] * len(records)
        for place, record in enumerate(records):
            try:
                valid.append((record, self._decode(record)))
            except InvalidRecord as error:
                letters.append(DeadLetter(record, error))
                lost[place] = True
            except MemoryError:
                raise
            except Exception as bug:  # noqa: BLE001  one record that triggers a bug must not block its partition for ever
                letters.append(DeadLetter(record, self._unread(record, bug)))
                lost[place] = True
        self._losses.note_read(lost)
        return valid, letters

    def _unread(self, record: ConsumerRecord[Any, Any], bug: Exception) -> InvalidRecord:
        self._metrics.bugs.inc()
        self._losses.note_unexplained()
        log.error(
            "decode_failed",
            topic=self._topic.name,
            partition=record.partition,
            offset=record.offset,
            cause=without_content(bug),
            # The exception's message may repeat the record's content. The traceback's lines of code do not.
            traceback="".join(traceback.format_tb(bug.__traceback__)),
        )
        return InvalidRecord(CANNOT_BE_READ, without_content(bug))

    async def _apply(self, values: Sequence[T]) -> None:
        await self._process(values)
        self._losses.note_applied()

    async def _set_aside(self, letters: Sequence[DeadLetter], epoch: int, found_alone: bool) -> None:
        self._losses.note_refused(len(letters))
        if found_alone:
            self._losses.note_unexplained()
        self._stop_when_too_many()
        await self._publish_dead_letters(letters, epoch)
        await failpoint("consumer.set_aside")

    async def _publish_dead_letters(self, letters: Sequence[DeadLetter], epoch: int) -> None:
        await self._holding.until_done(
            lambda: publish_dead_letters(self._producer, self._topic.dlq, letters), "dead letters", epoch
        )
        for letter in letters:
            self._metrics.dead_letters.labels(reason=letter.error.reason).inc()
            self._log_dead_letter(letter)

    def _stop_when_too_many(self) -> None:
        why = self._losses.too_many()
        if why is None:
            return
        self._stopped_for_good = why
        self._metrics.stopped.set(1)
        log.error("dlq_ratio_exceeded", topic=self._topic.name, why=why)
        raise BatchAbandoned(why)

    def _log_dead_letter(self, letter: DeadLetter) -> None:
        log.warning(
            "dead_letter",
            topic=self._topic.name,
            partition=letter.record.partition,
            offset=letter.record.offset,
            reason=letter.error.reason,
            detail=letter.error.detail,
        )

    async def _commit(self, records: Records, epoch: int) -> None:
        if epoch != self._holding.epoch:
            raise BatchAbandoned("the partitions were handed over meanwhile")
        last = {record.partition: record for record in records}  # records of a partition are in order
        ends = {TopicPartition(record.topic, partition): record.offset + 1 for partition, record in last.items()}
        try:
            await self._consumer.commit({tp: OffsetAndMetadata(end, "") for tp, end in ends.items()})
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions have a new owner, which repeats the batch. Its effects are durable and idempotent.
            self._metrics.commit_failures.inc()
            raise BatchAbandoned(f"commit refused: {type(error).__name__}") from error
        self._watch.committed(ends)
