"""A simulated Kafka: topics of partitions, consumer groups with generations and committed offsets, and a producer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from aiokafka import ConsumerRecord

from shared.kafka.producing.partitioner import partition_of
from shared.kafka.producing.producer import EventProducer, require_fits
from shared.kafka.records.record import Record
from shared.runtime.failures import is_transient
from tests.model.steps import effect, round_done
from tests.support.signing import record as received_record
from tests.support.turns import turn

T = TypeVar("T")


class Log:
    """Topics, append-only."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._topics: dict[str, list[list[Record]]] = {name: [[] for _ in range(n)] for name, n in partitions.items()}

    def append(self, topic: str, record: Record) -> None:
        """Append a record to the partition of its key."""
        parts = self._topics[topic]
        parts[partition_of(record.key or b"", len(parts))].append(record)

    def add_partition(self, topic: str) -> None:
        """Add a partition: from now on keys may map to other partitions."""
        self._topics[topic].append([])

    def partitions(self, topic: str) -> list[list[Record]]:
        """The records of a topic, by partition."""
        return self._topics[topic]


def polled(record: Record, *, partition: int, offset: int) -> ConsumerRecord[Any, Any]:
    """A record as the consumer gets it."""
    return received_record(record.value, key=record.key, headers=record.headers, partition=partition, offset=offset)


class LogProducer(EventProducer):
    """Publishes with the guarantees of `shared.kafka.producing.producer`; every record is a step."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def publish(self, topic: str, record: Record) -> None:
        require_fits(topic, record)

        async def append() -> None:
            self._log.append(topic, record)

        await effect(append, "publish")

    async def publish_in_order(self, topic: str, records: Iterable[Record]) -> None:
        count = len(self._log.partitions(topic))
        parts: dict[int, list[Record]] = {}
        for record in records:
            parts.setdefault(partition_of(record.key or b"", count), []).append(record)
        failed: OSError | None = None
        for part in parts.values():
            try:
                for record in part:
                    await self.publish(topic, record)
            except OSError as error:  # of this partition only a prefix was written; the others are not affected
                failed = error
        if failed is not None:
            raise failed

    async def partitions(self, topic: str) -> int:
        return len(self._log.partitions(topic))


class Group:
    """A consumer group on one topic. It refuses a commit of an older generation or of another member's partitions."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self.generation = 0
        self.members: list[Consumer[Any]] = []
        """The living members. The last rebalance decided which of them own partitions."""
        self._owners: dict[int, Consumer[Any]] = {}
        self._committed: dict[int, int] = {}
        self.timed_out: Consumer[Any] | None = None

    @property
    def committed(self) -> list[int]:
        """The committed offset of every partition."""
        return [self._committed.get(partition, 0) for partition in range(len(self.log.partitions(self.topic)))]

    @property
    def has_orphans(self) -> bool:
        """Whether a partition has no owner, or a dead one."""
        return any(self._owners.get(number) not in self.members for number in range(len(self.committed)))

    def rebalance(self, *, without: Consumer[Any] | None = None) -> None:
        """A new generation. Members notice it at their next poll; until then the previous owners are zombies.

        Args:
            without: A member whose session timed out: it gets no partitions, without noticing.
        """
        self.generation += 1
        joined = [member for member in self.members if member is not without] or self.members
        self._owners = {
            number: joined[(number + self.generation) % len(joined)] for number in range(len(self.committed)) if joined
        }
        self.timed_out = without

    def owned_by(self, member: Consumer[Any]) -> set[int]:
        """The member's partitions."""
        return {number for number, owner in self._owners.items() if owner is member}

    def commit(self, member: Consumer[Any], generation: int, ends: Mapping[int, int]) -> bool:
        """Whether the group accepted the commit."""
        if generation != self.generation or not ends.keys() <= self.owned_by(member):
            return False
        self._committed.update(ends)
        return True

    def reset(self, back: int) -> None:
        """Set the offsets back, as an operator would, by so many records in every partition."""
        self._committed = {number: max(0, offset - back) for number, offset in self._committed.items()}
        self.rebalance()


class Consumer(Generic[T]):
    """A member of a group, with the contract of `shared.kafka.consuming.consumer`: process, then commit; hold a failed batch.

    It does not implement waits (backoff, drain budget): the program decides which actor goes on.
    """

    def __init__(
        self,
        group: Group,
        *,
        decode: Callable[[ConsumerRecord[Any, Any]], T],
        process: Callable[[Sequence[T]], Awaitable[None]],
        on_assigned: Callable[[set[int]], Awaitable[None]] | None = None,
        on_revoked: Callable[[set[int]], Awaitable[None]] | None = None,
    ) -> None:
        self.group = group
        self.most_records = 5
        self._decode, self._process = decode, process
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._generation = 0
        self._epoch = 0
        self._positions: dict[int, int] = {}
        self.in_hand = False
        """Whether it has a batch."""

    @property
    def is_stale(self) -> bool:
        """Whether this member has not noticed a new generation yet."""
        return self._generation != self.group.generation

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to read or to commit."""
        ends = [len(part) for part in self.group.log.partitions(self.group.topic)]
        committed = self.group.committed
        busy = self.in_hand or self.is_stale
        return not busy and all(committed[number] == ends[number] for number in self._positions)

    async def run(self) -> None:
        """Consume, for ever."""
        while True:
            await turn()
            if records := await self._poll():
                self.in_hand = True
                await self.finish(records, self._epoch)
                self.in_hand = False
            else:
                round_done()

    async def _poll(self) -> list[ConsumerRecord[Any, Any]]:
        if self.is_stale:
            await self.learn()
        records = []
        for number, position in self._positions.items():
            part = self.group.log.partitions(self.group.topic)[number]
            taken = part[position : position + self.most_records]
            records += [polled(one, partition=number, offset=position + place) for place, one in enumerate(taken)]
            self._positions[number] += len(taken)
        return records

    async def learn(self) -> None:
        """Notice the rebalance: give up all partitions, take over the new ones. The current batch becomes a zombie's."""
        if self.group.timed_out is self:
            self.group.rebalance()  # it rejoins
        self._epoch += 1
        if self._on_revoked is not None and self._positions:
            await self._on_revoked(set(self._positions))
        self._generation = self.group.generation
        committed = self.group.committed
        self._positions = {number: committed[number] for number in sorted(self.group.owned_by(self))}
        if self._on_assigned is not None:
            await self._on_assigned(set(self._positions))

    async def finish(self, records: Sequence[ConsumerRecord[Any, Any]], epoch: int) -> None:
        """Process a batch and commit it, or abandon it because the partitions were reassigned."""
        decoded = [self._decode(one) for one in records]
        if await self.hold(lambda: self._process(decoded), epoch):
            await self.hold(lambda: self.commit(records, epoch), epoch)

    async def commit(self, records: Sequence[ConsumerRecord[Any, Any]], epoch: int) -> None:
        """Commit the offsets after a batch; if the group refuses, other members repeat the batch."""
        ends = {one.partition: one.offset + 1 for one in records}
        generation = self._generation

        async def ask() -> None:
            if epoch == self._epoch:
                self.group.commit(self, generation, ends)

        await effect(ask, "offset")

    async def hold(self, step: Callable[[], Awaitable[None]], epoch: int) -> bool:
        """Retry a step until it succeeds. False: it was abandoned, and the partitions are handed over."""
        while True:
            try:
                await step()
            except Exception as error:
                if not is_transient(error):
                    raise
                if epoch != self._epoch or self.is_stale:
                    return False
            else:
                return True
