"""Reads topics from outside, as any subscriber may: all records that are written from now on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer


@dataclass(frozen=True, slots=True)
class Read:
    """One record."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    """Of a header that appears twice, the last."""


@dataclass(slots=True)
class Topics:
    """What was read so far."""

    records: list[Read] = field(default_factory=list)

    def of(self, topic: str) -> list[Read]:
        """The records of one topic."""
        return [record for record in self.records if record.topic == topic]


@asynccontextmanager
async def reading(
    bootstrap_servers: str, topics: Sequence[str], *, security: Mapping[str, Any]
) -> AsyncIterator[Topics]:
    """Read `topics` in the background, from their present ends on, without a consumer group.

    Raises:
        aiokafka.errors.KafkaError: the broker does not answer, at the start or later (then on leaving).
    """
    consumer = AIOKafkaConsumer(
        *topics,
        group_id=None,
        enable_auto_commit=False,
        bootstrap_servers=bootstrap_servers,
        **security,
        # One long fetch instead of many, to save the broker work: these topics have little traffic.
        fetch_max_wait_ms=500,
    )
    await consumer.start()
    try:
        found = Topics()
        # "latest" would be resolved at the first fetch, and records written before that would be missed.
        for partition, end in (await consumer.end_offsets(list(consumer.assignment()))).items():
            consumer.seek(partition, end)
        task = asyncio.create_task(_read(consumer, found))
        try:
            yield found
        finally:
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, found: Topics) -> None:
    async for record in consumer:
        found.records.append(Read(record.topic, record.key, record.value, dict(record.headers)))
