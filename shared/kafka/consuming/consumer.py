"""The batch consumer: one piece over a batch subscriber (`RawSubscriber`) that owns the failure rules, and nothing else.

Contract
--------
`process` gets the valid records of one poll, in order within each partition. When it returns, its effects are durable
and all that it published is acknowledged; only then are the offsets committed, explicitly, as ``{partition: last + 1}``.
Killed anywhere before that, the records come again: `process` must be idempotent.

* **invalid** (`decode` raises `InvalidRecord`, or the Kafka client cannot unpack it: `shared.kafka.fetching.unpacking`): the
  record goes to the dead-letter topic, awaited, before the offset passes it; its neighbours are not affected. The same
  for a record that makes `decode` raise anything else: that is a bug, but of one record only.
* **transient** (`is_transient`): the position is held and the same batch is tried again with backoff; the consumer stays
  in its group, its readiness check fails meanwhile, and it gives the batch up only when its partitions are taken away or
  the service stops.
* **about the data** (`SetAside`, `is_about_the_data`, and a `Collision` that does not pass): the records that cannot be
  applied go to the dead-letter topic, awaited, and the rest of the batch goes on (`shared.kafka.consuming.isolation`).
* **bug** (anything else): nothing is committed and the process ends with exit code 1.

When too many records go to the dead letters, consumption stops with its position held (`shared.kafka.consuming.losses`).

A rebalance or a stop waits for the batch in hand, but no longer than the drain budget; what is unfinished then is left
uncommitted, and whoever reads on does it again.
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
    """How much a consumer takes at once, and when it refuses to go on."""

    max_records: int = 2_000
    """Most records of a batch: the sweet spot of PostgreSQL's set-based inserts is 100 to 2,000 rows."""
    batch_timeout_ms: int = 20
    """Longest wait for a first record. It is also how long FastStream sleeps after an empty poll, so it bounds latency
    when little arrives."""
    fetch_min_bytes: int = 16 * 1024
    """The brokers answer when there is so much, some hundred signatures, …"""
    fetch_max_wait_ms: int = 20
    """… or after so long: a moment's patience takes a third off what a signature costs at 1,000 a second
    (docs/performance-notes.md)."""
    dlq_ratio_limit: float = 0.5
    """Most of the last `dlq_window` records that may go to the dead letters, as a part of them."""
    dlq_window: int = 1_000
    dlq_run: int = 50
    """Most records in a row that may go there by errors that nobody foresaw, with none between them that went well. A
    client that repeats one bad request is below it; a constraint that refuses everything is found within a minute."""


class BatchConsumer(ConsumerRebalanceListener, Generic[T]):
    """See the module's contract.

    Args:
        topic: What to read; dead letters go to its DLQ.
        group: The consumer group.
        decode: Reads one record, or raises `InvalidRecord`.
        process: Works on a batch; see the contract.
        producer: For dead letters.
        metrics: Where to count.
        settings: The session timeout and the drain budget.
        on_bug: Ends the process.
        limits: How much at once.
        on_assigned: Told which partitions this process owns now, before their first batch. It runs while the group
            waits, so it only changes memory; whatever it raises is a bug.
        on_revoked: Told which partitions are given away, after their last batch; the same rules.
        waits_for: The names of the readiness checks of all that `process` needs besides Kafka. While a batch is held,
            /readyz says which of them are away.
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
            # How long the group waits in a rebalance for a member that finishes its batch. The client would take the
            # session timeout, and the drain budget would be cut short: the group goes on without the member.
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
        """The service stops: finish the batch in hand if that is possible at once, hold nothing any longer."""
        self._holding.stopping.set()
        for task in self._tasks:
            task.cancel()

    def why_not_consuming(self) -> str | None:
        """Why this consumer does not consume, where Kafka's silence is not the reason; None when it does."""
        if self._stopped_for_good:
            return self._stopped_for_good
        if self._holding.why:
            return self._holding.why
        if self._assigned is None or self._client is None:
            return "no partitions assigned yet"
        return self._watch.stalled

    async def check(self) -> str | Waiting | None:
        """Readiness: does it consume? That Kafka does not answer is said by `check_brokers`."""
        why = self.why_not_consuming()
        if why is None or self._stopped_for_good:
            return why
        return Waiting(why, self._waits_for)

    async def check_brokers(self) -> str | None:
        """Readiness: do the brokers answer, the producer and this consumer?"""
        return await self._producer.check() or self._watch.away

    @property
    def lag(self) -> int | None:
        """Records of the assigned partitions that are not committed yet; None while that is not known."""
        return self._watch.lag

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that this instance owns now."""
        return frozenset(self._assigned or ())

    # ------------------------------------------------------------------------------------------------------ rebalance

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the batch in hand, at most the drain budget, then let go of everything."""
        self._holding.handed_over.set()
        await failpoint("consumer.revoking")
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                async with self._in_hand:
                    pass
        except TimeoutError:
            # From here on the batch in hand is a zombie's: it may finish, the fences keep it harmless, and the epoch
            # keeps it from committing.
            log.warning("batch_outlived_rebalance", topic=self._topic.name, seconds=self._settings.drain_seconds)
        self._holding.epoch += 1
        self._assigned = None
        self._watch.let_go()
        if self._after_revoked is not None and revoked:
            await self._call(self._after_revoked, {tp.partition for tp in revoked})

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take over partitions."""
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
            self._consumer.pause(*self._consumer.assignment())  # or it would read to the end, and drop all of it
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
                # The broker's client ends what outlasts the drain budget, as it should: that is no error to be logged.
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
        """The records that the consumer still stands behind: a rebalance may have run since they were polled.

        The consumer's own position decides, not our note of the assignment, which may be older or newer than the poll.
        Where it is behind the records, or gone, the partition was reset to the committed offset: whoever owns it now
        reads them again. To drop records that the position is beyond would lose them at the next commit.
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
            except Exception as bug:  # noqa: BLE001  one record that meets a bug must not hold its partition for ever
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
            # The exception's own text may repeat the record's content. Lines of code do not.
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
        last = {record.partition: record for record in records}  # within a partition they are in order
        ends = {TopicPartition(record.topic, partition): record.offset + 1 for partition, record in last.items()}
        try:
            await self._consumer.commit({tp: OffsetAndMetadata(end, "") for tp, end in ends.items()})
        except (CommitFailedError, IllegalStateError) as error:
            # The group has moved on without us. Effects are done and idempotent; the new owner repeats them.
            self._metrics.commit_failures.inc()
            raise BatchAbandoned(f"commit refused: {type(error).__name__}") from error
        self._watch.committed(ends)
