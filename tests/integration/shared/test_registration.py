"""The behaviour of FastStream on which `RawSubscriber` relies, checked with the installed FastStream and Kafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord
from prometheus_client import CollectorRegistry

from deploy.local.parts.kafka import KafkaBroker
from shared.contract.topics import Topic
from shared.kafka.registration import FastStreamBroker, RawSubscriber, Records
from shared.service import new_broker
from tests.support.consuming import new_topic, numbers, settings_for, write
from tests.support.waiting import eventually


@dataclass
class Reading:
    """A broker with one subscriber.

    Attributes:
        bugs: what `on_bug` was called with.
    """

    broker: FastStreamBroker
    subscriber: RawSubscriber
    bugs: list[BaseException]

    @property
    def client(self) -> Any:
        """The subscriber's client, while the broker runs."""
        return self.subscriber.consumer


@asynccontextmanager
async def reading(
    kafka: KafkaBroker, topic: Topic, on_records: Callable[[Records], Awaitable[None]]
) -> AsyncIterator[Reading]:
    """Read a topic from its beginning."""
    broker, bugs = new_broker(settings_for(kafka), CollectorRegistry(), "test"), list[BaseException]()
    subscriber = RawSubscriber(
        broker,
        topic,
        on_records,
        on_bug=bugs.append,
        reader="a test",
        group=None,
        start="earliest",
        batch_timeout_ms=20,
    )
    await broker.start()
    try:
        yield Reading(broker, subscriber, bugs)
    finally:
        await broker.stop()


async def test_records_are_in_hand_in_the_turn_in_which_they_were_polled(kafka: KafkaBroker) -> None:
    topic = await new_topic(kafka)
    taken: list[ConsumerRecord[Any, Any]] = []
    seen: list[bool] = []

    async def take(records: Records) -> None:
        await asyncio.sleep(0.05)
        taken.extend(records)

    async with reading(kafka, topic, take) as read:
        poll = read.client.getmany

        async def watched(**options: Any) -> Any:
            records = await poll(**options)
            if records:  # code that runs next in the loop could read the positions, which have moved
                asyncio.get_running_loop().call_soon(lambda: seen.append(read.subscriber.in_hand))
            return records

        read.client.getmany = watched
        await write(kafka, topic.name, numbers(5), one_by_one=True)
        await eventually(lambda: len(taken) == 5, "all are taken")
        await eventually(lambda: not read.subscriber.in_hand, "none is in hand any more")
    assert seen
    assert all(seen)


async def test_a_bug_is_reported_and_its_records_stay_in_hand(kafka: KafkaBroker) -> None:
    async def broken(_: Records) -> None:
        raise KeyError("a bug")

    topic = await new_topic(kafka)
    await write(kafka, topic.name, numbers(1))
    async with reading(kafka, topic, broken) as read:
        await eventually(lambda: bool(read.bugs), "reported")
        assert read.subscriber.in_hand
    assert not read.subscriber.running
    assert read.subscriber.consumer is None
