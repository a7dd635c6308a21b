"""Linger: records that are published at about the same time share a batch.

A service that publishes for every request has thousands of open requests. aiokafka takes each record by itself, and repeats
for each what can be done once for all: find the partition's metadata, queue, wake the sender, make a result. Here the
records of a few milliseconds are collected by partition and sent as whole batches, and every caller still waits for the
acknowledgement of its own record.

A partition has one batch in flight. Meanwhile the next one is collected: the busier the brokers, the larger the batches.
"""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.errors import KafkaConnectionError

from shared.kafka.records.record import Record


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A batch that was given to the sender and is in flight."""

    records: int
    """How many of the given records it holds, from the first on."""
    acknowledged: asyncio.Future[Any]
    told: Callable[[BaseException], BaseException]
    """Maps the error with which the batch failed to the error that callers get."""
    arrival: Callable[[Any], int | None] = field(default=lambda _: None)
    """Maps the result of `acknowledged` to the time at which the broker appended the batch; see
    `shared.contract.bounds.arrival`."""


Send = Callable[[str, int, Sequence[Record]], Awaitable[UnderWay]]
"""Gives a partition's records to the sender, as many as fit into one batch, without waiting for the acknowledgement."""

Waiting = asyncio.Future[int | None]


class _Partition:
    """The records that wait for one partition, in the order of arrival."""

    __slots__ = ("under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[Waiting, Record] = {}
        self.under_way: object | None = None


class Accumulator:
    """Holds records back by partition and sends them in batches.

    Args:
        send: See `Send`.
        seconds: Linger: the time between two rounds of sending. A single record does not wait; in a surge all records of
            this time share a batch.
        many: From this number of records on, a round begins after half of `seconds`: their senders wait for the
            acknowledgements before they send more.
    """

    def __init__(self, send: Send, *, seconds: float, many: int) -> None:
        self._send, self._seconds, self._many = send, seconds, many
        self._come = 0  # records since the last round of sending
        self._partitions: defaultdict[tuple[str, int], _Partition] = defaultdict(_Partition)
        self._next_turn: asyncio.TimerHandle | None = None
        self._last_turn = float("-inf")
        self._turns: set[asyncio.Task[None]] = set()

    async def publish(self, topic: str, partition: int, record: Record) -> int | None:
        """Publish `record`, wait for its acknowledgement, and return when the broker appended it (`UnderWay.arrival`).

        If the call is cancelled before its batch is built, the record is not sent.

        Raises:
            Exception: the sender's error; the record may or may not be on the topic.
        """
        home = self._partitions[topic, partition]
        waiting: Waiting = asyncio.get_running_loop().create_future()
        home.waiting[waiting] = record
        self._come += 1
        if self._come == self._many and self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._want_turn()
        try:
            return await waiting
        finally:
            home.waiting.pop(waiting, None)

    def forget_under_way(self) -> None:
        """Stop waiting for batches in flight: the sender was replaced, and those of the old one may never end."""
        for partition in self._partitions.values():
            partition.under_way = None

    def _want_turn(self) -> None:
        if self._next_turn is None:
            loop = asyncio.get_running_loop()
            pause = self._seconds if self._come < self._many else self._seconds / 2
            self._next_turn = loop.call_at(max(loop.time(), self._last_turn + pause), self._take_turn)

    def _take_turn(self) -> None:
        self._next_turn, self._come = None, 0
        self._last_turn = asyncio.get_running_loop().time()
        turn = asyncio.create_task(self._send_all())
        self._turns.add(turn)  # the loop itself keeps no task
        turn.add_done_callback(self._turns.discard)

    async def _send_all(self) -> None:
        for (topic, number), partition in list(self._partitions.items()):
            if partition.waiting and partition.under_way is None:
                await self._send_one(topic, number, partition)

    async def _send_one(self, topic: str, number: int, partition: _Partition) -> None:
        mark = partition.under_way = object()
        waiting, records = list(partition.waiting), list(partition.waiting.values())
        try:
            batch = await self._send(topic, number, records)
        except Exception as error:  # noqa: BLE001  every caller gets it
            self._end(partition, mark, waiting, error)
            return
        taken = waiting[: batch.records]
        for one in taken:
            partition.waiting.pop(one, None)
        batch.acknowledged.add_done_callback(partial(self._acknowledged, partition, mark, taken, batch))

    def _acknowledged(
        self,
        partition: _Partition,
        mark: object,
        taken: list[Waiting],
        batch: UnderWay,
        outcome: asyncio.Future[Any],
    ) -> None:
        if outcome.cancelled():
            self._end(partition, mark, taken, KafkaConnectionError("the producer was closed"))
        elif (error := outcome.exception()) is not None:
            self._end(partition, mark, taken, batch.told(error))
        else:
            self._end(partition, mark, taken, None, batch.arrival(outcome.result()))

    def _end(
        self,
        partition: _Partition,
        mark: object,
        taken: list[Waiting],
        error: BaseException | None,
        arrival: int | None = None,
    ) -> None:
        for one in taken:
            if one.done():  # the caller has given up
                continue
            if error is None:
                one.set_result(arrival)
            else:
                one.set_exception(copy.copy(error))  # every caller raises it and adds to its traceback
        if partition.under_way is mark:
            partition.under_way = None
        if partition.waiting:
            self._want_turn()
