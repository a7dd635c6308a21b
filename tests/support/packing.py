"""Batches that no client would write: packed by hand, or damaged on the broker's disk."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from deploy.local.parts.apache_kafka import ApacheKafka
from deploy.local.parts.kafka import KafkaBroker
from tests.support.consuming import HEADERS, Raw, write

STRANGE_NAME: Final = "STRANGE-NAME"
STRANGE: Final = (STRANGE_NAME, b"strange")
"""A header whose name `strange_name` and `negative_length` change."""

Change = Callable[[bytearray], None]
"""A change of the bytes of one batch, which must keep their number."""


def pack(values: Sequence[bytes], *, strange: int | None = None, codec: int = 0) -> bytearray:
    """A batch of records; the one at `strange` has the header `STRANGE` as well."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        headers: list[tuple[str, bytes | None]] = [*HEADERS, *([STRANGE] if number == strange else [])]
        builder.append(number, 1_700_000_000_000 + number, b"key", value, headers)
    return bytearray(builder.build())


def correct(batch: bytearray) -> None:
    """Compute the checksum of a changed batch."""
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))


def strange_name(batch: bytearray) -> None:
    """Header names that are not UTF-8."""
    batch[:] = batch.replace(STRANGE_NAME.encode(), b"\xff" * len(STRANGE_NAME))
    correct(batch)


def negative_length(batch: bytearray) -> None:
    """A header name with a negative length."""
    batch[batch.index(STRANGE_NAME.encode()) - 1] = 0x0D  # -7
    correct(batch)


def unknown_codec(batch: bytearray) -> None:
    """A compression that Kafka does not have."""
    batch[22] |= 7
    correct(batch)


def rubbish(codec: int) -> Change:
    """A payload that is marked as compressed and is not."""

    def change(batch: bytearray) -> None:
        batch[22] = batch[22] & ~7 | codec
        correct(batch)

    return change


def bad_checksum(batch: bytearray) -> None:
    """One flipped bit in the last record, so that the checksum is wrong."""
    batch[-1] ^= 1


async def write_changed(
    kafka: KafkaBroker, topic: str, records: Sequence[Raw], change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write records in batches changed by `change`. The broker must accept them."""
    build = BatchBuilder._build

    def changed(self: BatchBuilder) -> bytes:
        packed = bytearray(bytes(build(self)))
        change(packed)
        return bytes(packed)

    with monkeypatch.context() as patch:
        patch.setattr(BatchBuilder, "_build", changed)
        await write(kafka, topic, records)


@contextmanager
def spoilt(kafka: KafkaBroker, topic: str, number: int, change: Change, *, partition: int = 0) -> Iterator[None]:
    """Replace the batch with that number on the broker's disk, from where it is sent unchanged; restore it at the end."""
    assert isinstance(kafka, ApacheKafka)
    [file] = Path(kafka._data_dir).rglob(f"{topic}-{partition}/*.log")
    begin, batch = list(_batches(file.read_bytes()))[number]
    changed = bytearray(batch)
    change(changed)
    assert len(changed) == len(batch)
    _overwrite(file, begin, changed)
    try:
        yield
    finally:
        _overwrite(file, begin, batch)


def _batches(data: bytes) -> Iterator[tuple[int, bytes]]:
    begin = 0
    while begin + 12 <= len(data) and (length := struct.unpack_from(">i", data, begin + 8)[0]):
        yield begin, data[begin : begin + 12 + length]
        begin += 12 + length


def _overwrite(file: Path, begin: int, data: bytes | bytearray) -> None:
    with file.open("r+b") as opened:
        opened.seek(begin)
        opened.write(data)
