"""Floor of every consumer: aiokafka reads batches and commits after each, without looking at the records.

Run with ``python -m tests.bench.floors.kafka_consume``; KAFKA_BOOTSTRAP_SERVERS, TOPIC.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import uvloop
from aiokafka import AIOKafkaConsumer

GROUP = "floor-kafka-consume"


async def main() -> None:
    """Consume until a signal ends it; batches and fetches as large as Groundswell's."""
    consumer = AIOKafkaConsumer(
        os.environ.get("TOPIC", "signatures.verified.v1"),
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        group_id=GROUP,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 * 1024 * 1024,
        fetch_max_wait_ms=50,
    )
    await consumer.start()
    try:
        while True:
            if await consumer.getmany(timeout_ms=20, max_records=5000):
                await consumer.commit()
    finally:
        await consumer.stop()


async def _until_signal() -> None:
    task = asyncio.create_task(main())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    uvloop.run(_until_signal())
