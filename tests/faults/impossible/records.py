"""Writes records to topics by hand: with any key, into any partition, and with headers that no client would write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.record import Headers
from tests.faults.impossible.parts import Parts
from tests.faults.notes import BY_HAND, Place, digest_of


class Written(NamedTuple):
    """A written record: its place, and the digest that its dead letter must have."""

    place: Place
    digest: str


class _NotUtf8(str):
    """A header name that is encoded as invalid UTF-8. Only aiokafka's builder in Python calls its `encode`."""

    __slots__ = ()

    def encode(self, *_: object, **__: object) -> bytes:
        return b"\xff\xfe" + super().encode()


async def put(
    parts: Parts,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    *,
    partition: int | None = None,
    unreadable_header: bool = False,
) -> Written:
    """Write one record, with the header `BY_HAND`.

    Args:
        partition: instead of the one of the key.
        unreadable_header: adds a header whose name is not UTF-8.

    Raises:
        aiokafka.errors.KafkaError, OSError: it was not acknowledged.
    """
    (written,) = await put_all(
        parts, topic, [(key, value, headers)], partition=partition, unreadable_header=unreadable_header
    )
    return written


async def put_all(
    parts: Parts,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None, Headers]],
    *,
    partition: int | None = None,
    unreadable_header: bool = False,
) -> list[Written]:
    """Write records, in order, into the partition of the first one's key or the given one."""
    producer = AIOKafkaProducer(bootstrap_servers=parts.bootstrap_servers, acks="all", request_timeout_ms=20_000)
    await producer.start()
    try:
        if partition is None:
            partition = partition_of(records[0][0] or b"", len(await producer.partitions_for(topic)))
        batch: Any = producer.create_batch()
        if unreadable_header:
            batch._builder = _DefaultRecordBatchBuilderPy(
                2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1_000_000
            )
        for key, value, headers in records:
            extra: list[tuple[str, bytes]] = [(BY_HAND, b"1")]
            if unreadable_header:
                extra.append((_NotUtf8("name"), b"1"))
            batch.append(key=key, value=value, timestamp=None, headers=[*headers, *extra])
        written = await (await producer.send_batch(batch, topic, partition=partition))
        return [
            Written((topic, partition, written.offset + number), digest_of(key, value, [*headers, (BY_HAND, b"1")]))
            for number, (key, value, headers) in enumerate(records)
        ]
    finally:
        await producer.stop()
