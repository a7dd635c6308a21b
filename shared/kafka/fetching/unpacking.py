"""Reads past what the Kafka client cannot unpack, so that no record and no batch blocks a partition.

Brokers do not validate header names, and a disk may corrupt any byte. In that case aiokafka 0.14.0 raises from
`PartitionRecords._unpack_records`, with three consequences that persist: the partition makes no progress; the records
before the bad one are not delivered; and `Fetcher.fetched_records` drops the records that it has already taken from *other*
partitions. The positions of those have moved on, so the next commit skips records that were never processed.

`install` replaces two classes of the client. The client's code still does the work. Only when it fails, the bytes of that
batch are read again here:

* A record that can be delimited but not read becomes an `Unreadable` with everything that could be read, in its place in
  the batch. Reasons: `unreadable_headers` (a name is not UTF-8, a length is below 0), `unreadable_record`.
* A batch that cannot be read at all (wrong checksum, unknown codec, corrupt compressed data) becomes one `Unreadable` with
  its bytes and its last offset. Reason: `unreadable_batch`.
* Bytes that do not match their checksum, or for which there was no memory, are first fetched again. They are skipped once
  the same bytes have arrived `READS` times in a row: corruption on the network differs each time.

Because an `Unreadable` is a record, its reader sets it aside and commits past it like any other.

A valid batch costs one more Python call, a record one more generator step.
tests/unit/shared/kafka/fetching/test_unpacking.py also tests the client's own behaviour as described here, so that an upgrade
that changes it is noticed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from typing import Any, Final

from aiokafka import ConsumerRecord, TopicPartition, codec
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

from shared.kafka.fetching.batch_format import BatchHead, RecordParts, checksum_is_right, unpack
from shared.kafka.fetching.unreadable import Unreadable
from shared.runtime.failures import InvalidRecord

READS: Final = 5
"""How often in a row the same bytes must arrive before they are taken for what is on the broker's disk."""

_PartitionRecords: Final[Any] = fetcher.PartitionRecords

_FRAME: Final = struct.Struct(">qi")  # how a batch begins: base offset, length of what follows

_SNIFFED: Final = 4096
"""How many bytes are compared if the length of a batch is not known."""


def install() -> None:
    """Make every consumer that this process starts from now on read past what it cannot unpack.

    Raises:
        RuntimeError: a decompression library is missing. Valid batches would be skipped without it.
    """
    if not (codec.has_gzip() and codec.has_snappy() and codec.has_lz4() and codec.has_zstd()):
        raise RuntimeError("cramjam is missing: without it records in the usual compressions cannot be read")
    vars(fetcher).update(MemoryRecords=FetchedBytes, PartitionRecords=UnpackedRecords)


class FetchedBytes:
    """aiokafka's `MemoryRecords`, but it keeps the bytes, and it never ends silently before the first batch."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._batches: Any = MemoryRecords(data)
        self._taken = 0
        self.torn = False
        """Whether the start of the next batch is unknown."""

    def size_in_bytes(self) -> int:
        """Return the total number of bytes."""
        return len(self._data)

    def has_next(self) -> bool:
        """Return whether there is another batch. An incomplete first batch counts: no broker sends one, so it is an error."""
        if self.torn:
            return False
        return self._batches.has_next() or (not self._taken and len(self._data) > 0)

    def next_batch(self) -> Any:
        """Return the next batch.

        Raises:
            aiokafka.errors.CorruptRecordException: the next bytes are not a batch; nothing after them can be found.
        """
        if not self._batches.has_next():
            self.torn = True
            raise CorruptRecordException("less than a batch was sent")
        try:
            batch = self._batches.next_batch()
        except Exception:
            self.torn = True
            raise
        self._taken += 1
        return batch

    def latest(self) -> bytes:
        """Return the bytes of the batch that was taken last; all remaining bytes if `torn`."""
        begin, end = self._place()
        return self._data[end:] if self.torn else self._data[begin:end]

    def following_offset(self) -> int | None:
        """Return the base offset of the batch after the latest; None if there is none."""
        _, end = self._place()
        return None if not self._batches.has_next() or self.torn else int(_FRAME.unpack_from(self._data, end)[0])

    def _place(self) -> tuple[int, int]:
        begin = end = 0
        for _ in range(self._taken):
            begin, end = end, end + _FRAME.size + _FRAME.unpack_from(self._data, end)[1]
        return begin, end


class UnpackedRecords(_PartitionRecords):  # type: ignore[misc]
    """aiokafka's `PartitionRecords`, but it reads past what it cannot unpack.

    It never raises: an exception would lose records of other partitions (see the module).
    """

    _reads: dict[TopicPartition, tuple[int, int]] = {}  # noqa: RUF012  which bytes failed last, and how often
    _records: FetchedBytes
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord[Any, Any]]:
        while True:
            try:
                yield from super()._unpack_records()
            except BaseException as error:
                # A panic in cramjam's Rust code is a `BaseException`.
                if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                    raise
                failure = error
            else:
                return
            if not (yield from self._read_past(failure)):
                return

    def _read_past(self, failure: BaseException) -> Generator[ConsumerRecord[Any, Any], None, bool]:
        """Yield what can be read of the batch on which the client failed. Returns whether to go on with the next batch."""
        raw = self._records.latest()
        sound = not self._records.torn and checksum_is_right(raw)
        no_memory = isinstance(failure, MemoryError)
        if (not sound or no_memory) and self._reads_again(raw):
            return False
        if not sound:
            end = self._end_of_unsound(raw)
            yield self._pass_over(raw, end, _cause(failure))
            return not self._records.torn
        head = BatchHead.of(raw)
        end = max(self.next_fetch_offset + 1, head.end) if head else self.next_fetch_offset + 1
        if head is None or no_memory:
            yield self._pass_over(raw, end, _cause(failure))
            return True
        try:
            packed = unpack(raw, head)
        except BaseException as error:  # noqa: BLE001  any codec's error, including panics of Rust
            yield self._pass_over(raw, end, _cause(error))
            return True
        yield from self._one_by_one(raw, head, packed)
        self.next_fetch_offset = max(self.next_fetch_offset, head.end)
        return True

    def _reads_again(self, raw: bytes) -> bool:
        """Return whether these bytes must be fetched again before they are accepted as they are."""
        fingerprint = zlib.crc32(raw[:_SNIFFED] if self._records.torn else raw)
        before, times = self._reads.get(self._tp, (fingerprint, 0))
        times = times + 1 if before == fingerprint else 1
        self._reads[self._tp] = (fingerprint, times)
        return times < READS

    def _end_of_unsound(self, raw: bytes) -> int:
        """Return the offset after a batch that does not match its checksum; its head may be corrupt too.

        An offset beyond the end of the topic would reset the client to the topic's start. So the end is taken from the next
        batch, or from two fields of the head if they agree. Otherwise the offset rises by one, and the broker is asked again.
        """
        at = self.next_fetch_offset
        following = self._records.following_offset()
        if following is not None and following > at:
            return following
        head = None if self._records.torn else BatchHead.of(raw)
        if head and head.base <= at < head.end and head.last_delta + 1 == head.records <= len(raw):
            return head.end
        return at + 1

    def _pass_over(self, raw: bytes, end: int, cause: str) -> ConsumerRecord[Any, Any]:
        first, self.next_fetch_offset = self.next_fetch_offset, max(self.next_fetch_offset, end)
        detail = f"offsets {first} to {end - 1}, {len(raw)} bytes: {cause}"
        whole = RecordParts(value=raw, problem=InvalidRecord("unreadable_batch", detail))
        return self._record(whole, end - 1, (-1, 0), first=min(first, end - 1))

    def _one_by_one(self, raw: bytes, head: BatchHead, packed: bytes) -> Iterator[ConsumerRecord[Any, Any]]:
        """Yield the records of a decompressed batch, each read on its own. Every record begins with its length."""
        buffer, at, offset = bytearray(packed), 0, head.base - 1
        for number in range(head.records):
            try:
                length, begin = decode_varint(buffer, at)
                at = begin + length
                if length < 0 or at > len(buffer):
                    raise ValueError("a length that leads out of the batch")
            except (ValueError, IndexError):
                yield self._pass_over(raw, head.end, f"no record can be told apart after {number} of {head.records}")
                return
            parts = RecordParts.of(buffer[begin:at])
            offset = offset + 1 if parts.offset_delta is None else head.base + parts.offset_delta
            if offset < self.next_fetch_offset:
                continue  # already delivered, or before the requested offset
            if offset >= head.end:
                yield self._pass_over(raw, head.end, f"record {number} names an offset outside of the batch")
                return
            self.next_fetch_offset = offset + 1
            yield self._record(parts, offset, head.time_of(parts.time_delta))
        if at != len(buffer):
            yield self._pass_over(raw, head.end, f"{len(buffer) - at} bytes after the last of {head.records} records")

    def _record(
        self, parts: RecordParts, offset: int, time: tuple[int, int], *, first: int | None = None
    ) -> ConsumerRecord[Any, Any]:
        fields: dict[str, Any] = {
            "topic": self._tp.topic,
            "partition": self._tp.partition,
            "offset": offset,
            "timestamp": time[0],
            "timestamp_type": time[1],
            "key": parts.key,
            "value": parts.value,
            "checksum": None,
            "serialized_key_size": _size(parts.key),
            "serialized_value_size": _size(parts.value),
            "headers": tuple(parts.headers),
        }
        if parts.problem is None:
            return ConsumerRecord(**fields)
        first = offset if first is None else first
        return Unreadable(**fields, error=parts.problem, first_offset=first, raw_headers=parts.raw_headers)


def _size(part: bytes | None) -> int:
    return -1 if part is None else len(part)


def _cause(failure: BaseException) -> str:
    return type(failure).__name__  # the message may hold the content
