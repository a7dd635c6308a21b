"""The task beside a consumer must survive every change of the group."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from prometheus_client import CollectorRegistry

from shared.kafka.consuming import watch as watching
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.kafka.consuming.watch import ConsumerWatch

A, B = TopicPartition("topic", 0), TopicPartition("topic", 1)


class _Client:
    """A client that loses partitions while the brokers answer, with aiokafka's errors."""

    def __init__(self) -> None:
        self.owned = {A, B}
        self.lost: set[TopicPartition] = set()
        self.asked = 0

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self.owned)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        self.owned -= self.lost
        return dict.fromkeys(partitions, 10)

    def highwater(self, partition: TopicPartition) -> int:
        assert partition in self.owned, "Partition is not assigned"
        return 12

    async def committed(self, _: TopicPartition) -> int:
        return 5

    async def position(self, partition: TopicPartition) -> int:
        if partition not in self.owned:
            raise IllegalStateError("Partition is not assigned")
        return 5


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def _measured(client: _Client, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watch measure twice; raises what ends it."""
    monkeypatch.setattr(watching, "_MEASURE_SECONDS", 0.01)
    watch = ConsumerWatch(
        "topic",
        client=lambda: cast("AIOKafkaConsumer", cast("Any", client)),
        busy=lambda: False,
        metrics=ConsumerMetrics(registry),
    )
    watch.take_over()
    task = asyncio.create_task(watch.measure())
    try:
        async with asyncio.timeout(60):
            while client.asked < 2 and not task.done():
                await asyncio.sleep(0.01)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _lag(registry: CollectorRegistry, partition: int) -> float | None:
    return registry.get_sample_value("groundswell_consumer_lag_records", {"partition": str(partition)})


async def test_partitions_that_are_taken_while_the_brokers_answer_do_not_end_the_measuring(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _Client()
    client.lost = {B}

    await _measured(client, registry, monkeypatch)

    assert client.asked >= 2


async def test_the_lag_is_measured_from_whichever_end_is_further(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _measured(_Client(), registry, monkeypatch)

    assert (_lag(registry, 0), _lag(registry, 1)) == (7, 7)
