"""Gathering records: which share a batch, and what each caller gets back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from shared.kafka.producing.accumulator import Accumulator, UnderWay
from shared.kafka.records.record import Record

TOPIC = "signatures"


def record(number: int) -> Record:
    return Record(b"key", str(number).encode(), [])


class Sender:
    """Takes batches of at most `most` records and acknowledges them on demand."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.batches: list[tuple[int, list[int]]] = []
        self.open: list[asyncio.Future[Any]] = []
        self.refuses: Exception | None = None

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> UnderWay:
        assert topic == TOPIC
        if self.refuses is not None:
            raise self.refuses
        taken = records[: self.most]
        self.batches.append((partition, [int(one.value or b"") for one in taken]))
        acknowledged: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.open.append(acknowledged)
        return UnderWay(len(taken), acknowledged, self.told)

    @staticmethod
    def told(error: BaseException) -> BaseException:
        return ConnectionError(f"told of {error}")


def start(accumulator: Accumulator, *numbers: int, partition: int = 0) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(accumulator.publish(TOPIC, partition, record(number))) for number in numbers]


async def settle() -> None:
    """Until everything that can happen without the sender has happened."""
    await asyncio.sleep(0.03)


async def test_what_is_published_at_the_same_time_travels_together_by_partition() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0.002, many=100)
    callers = [*start(accumulator, 1, 2), *start(accumulator, 3, partition=1), *start(accumulator, 4)]
    await settle()
    assert sorted(sender.batches) == [(0, [1, 2, 4]), (1, [3])]
    assert not any(caller.done() for caller in callers)


async def test_the_first_goes_at_once_and_what_comes_soon_after_it_goes_together() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=3_600, many=100)
    for number in range(4):
        start(accumulator, number, partition=number % 2)
        await settle()
    assert sender.batches == [(0, [0])]
    assert accumulator._next_turn is not None
    accumulator._next_turn.cancel()
    accumulator._take_turn()  # an hour later
    await settle()
    assert sender.batches == [(0, [0]), (1, [1, 3])]  # 2 waits for the acknowledgement of 0


async def test_many_wait_half_as_long() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=3_600, many=3)
    accumulator._last_turn = asyncio.get_running_loop().time() - 2_000  # more than half of the time ago
    start(accumulator, 1, 2)
    await settle()
    assert sender.batches == []
    start(accumulator, 3)
    await settle()
    assert sender.batches == [(0, [1, 2, 3])]
    start(accumulator, 4, 5, 6, partition=1)
    await settle()
    assert len(sender.batches) == 1, "half of the time has not passed since the last turn"


async def test_each_waits_for_its_own_acknowledgement() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    here, there = *start(accumulator, 1), *start(accumulator, 2, partition=1)
    await settle()
    sender.open[0].set_result(None)
    await settle()
    assert (here.done(), there.done()) == (True, False)


async def test_a_partition_has_one_batch_under_way_and_gathers_the_next() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    start(accumulator, 1)
    await settle()
    for number in (2, 3, 4):
        start(accumulator, number)
        await settle()
    others = start(accumulator, 5, partition=1)
    await settle()
    assert sender.batches == [(0, [1]), (1, [5])]  # the other partition is not held up
    sender.open[0].set_result(None)
    await settle()
    assert sender.batches[2:] == [(0, [2, 3, 4])]
    assert not others[0].done()


async def test_what_does_not_fit_a_batch_comes_with_the_next_in_its_order() -> None:
    sender = Sender(most=2)
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    callers = start(accumulator, 1, 2, 3)
    await settle()
    assert sender.batches == [(0, [1, 2])]
    sender.open[0].set_result(None)
    await settle()
    assert sender.batches == [(0, [1, 2]), (0, [3])]
    assert [caller.done() for caller in callers] == [True, True, False]


async def test_a_failure_is_told_to_those_of_its_batch_each_in_a_copy() -> None:
    sender = Sender(most=2)
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    first, second, third = start(accumulator, 1, 2, 3)
    await settle()
    sender.open[0].set_exception(OSError("gone"))
    await settle()
    sender.open[1].set_result(None)
    results = await asyncio.gather(first, second, third, return_exceptions=True)
    assert [str(result) for result in results] == ["told of gone", "told of gone", "None"]
    assert results[0] is not results[1]


async def test_what_cannot_be_given_to_the_sender_is_told_at_once() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    sender.refuses = ConnectionError("away")
    with pytest.raises(ConnectionError, match="away"):
        await accumulator.publish(TOPIC, 0, record(1))
    sender.refuses = None
    (caller,) = start(accumulator, 2)
    await settle()
    sender.open[0].set_result(None)
    await caller


async def test_who_gives_up_before_the_batch_is_made_is_not_sent() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    start(accumulator, 1)
    await settle()
    gave_up, stays = start(accumulator, 2, 3)
    await asyncio.sleep(0)
    gave_up.cancel()
    await settle()
    sender.open[0].set_result(None)
    await settle()
    assert sender.batches == [(0, [1]), (0, [3])]
    sender.open[1].set_result(None)
    await stays


async def test_who_gives_up_later_does_not_disturb_the_others() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    gave_up, stays = start(accumulator, 1, 2)
    await settle()
    gave_up.cancel()
    await settle()
    sender.open[0].set_result(None)
    await stays


async def test_a_sender_that_is_closed_tells_of_a_lost_connection() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    (caller,) = start(accumulator, 1)
    await settle()
    sender.open[0].cancel()
    with pytest.raises(KafkaConnectionError):
        await caller


async def test_what_a_replaced_sender_never_ends_holds_nothing_up() -> None:
    sender = Sender()
    accumulator = Accumulator(sender.send, seconds=0, many=100)
    start(accumulator, 1)
    await settle()
    accumulator.forget_under_way()
    (caller,) = start(accumulator, 2)
    await settle()
    assert sender.batches == [(0, [1]), (0, [2])]
    sender.open[0].set_result(None)  # late: it must not start a second batch beside the current one
    await settle()
    start(accumulator, 3)
    await settle()
    assert sender.batches == [(0, [1]), (0, [2])]
    sender.open[1].set_result(None)
    await caller
