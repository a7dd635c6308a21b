"""A batch and its records as the brokers store them: https://kafka.apache.org/documentation/#messageformat

Only as much as is needed to read on where the Kafka client fails (`shared.kafka.fetching.unpacking`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiokafka import codec
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import calc_crc32c, decode_varint

from shared.runtime.failures import InvalidRecord

_MAGIC_AT: Final = 16
_CRC_AT: Final = 17
_CRC_FROM: Final = 21
_HEAD: Final = struct.Struct(">qiibIhiqqqhii")

_CODECS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: bytes,
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}
_LOG_APPEND_TIME: Final = 0x08


def checksum_is_right(raw: bytes) -> bool:
    """Return whether the bytes of a batch, in any of Kafka's formats, match its checksum."""
    magic = raw[_MAGIC_AT]
    try:
        if magic < 2:
            return bool(LegacyRecordBatch(raw, magic).validate_crc())
        return bool(struct.unpack_from(">I", raw, _CRC_AT)[0] == calc_crc32c(raw[_CRC_FROM:]))
    except Exception:  # noqa: BLE001  too short to have a checksum
        return False


class BatchHead(NamedTuple):
    """The head of a batch in the current format (magic 2)."""

    base: int
    codec: int
    by_log: bool
    last_delta: int
    first_time: int
    last_time: int
    records: int

    @classmethod
    def of(cls, raw: bytes) -> BatchHead | None:
        """Return the head; None for a batch in a format from before Kafka 0.11."""
        if raw[_MAGIC_AT] < 2 or len(raw) < _HEAD.size:
            return None
        base, _, _, _, _, attributes, last_delta, first_time, last_time, _, _, _, records = _HEAD.unpack_from(raw)
        by_log = bool(attributes & _LOG_APPEND_TIME)
        return cls(base, attributes & 7, by_log, last_delta, first_time, last_time, records)

    @property
    def end(self) -> int:
        """The offset after the batch."""
        return self.base + self.last_delta + 1

    def time_of(self, delta: int) -> tuple[int, int]:
        """Return a record's timestamp (milliseconds since 1970) and its type, as in a `ConsumerRecord`."""
        return (self.last_time, 1) if self.by_log else (self.first_time + delta, 0)


def unpack(raw: bytes, head: BatchHead) -> bytes:
    """Return the records of a batch, concatenated and decompressed.

    Raises:
        UnknownCodec: the head names a compression that Kafka does not have.
        BaseException: whatever the codec raises, including panics of Rust.
    """
    if head.codec not in _CODECS:
        raise UnknownCodec
    return bytes(_CODECS[head.codec](raw[_HEAD.size :]))


class UnknownCodec(Exception):
    """A batch names a compression that Kafka does not have."""


@dataclass(slots=True)
class RecordParts:
    """What could be read of one record: https://kafka.apache.org/documentation/#record"""

    offset_delta: int | None = None
    time_delta: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    raw_headers: bytes = b""
    problem: InvalidRecord | None = None

    @classmethod
    def of(cls, body: bytearray) -> RecordParts:
        """Read as much as possible of a record's bytes; `problem` says what could not be read."""
        parts = cls()
        try:
            _, at = decode_varint(body, 0)  # attributes: unused
            parts.time_delta, at = decode_varint(body, at)
            parts.offset_delta, at = decode_varint(body, at)
            parts.key, at = _sized(body, at)
            parts.value, at = _sized(body, at)
        except (ValueError, IndexError):
            parts.key, parts.value = None, bytes(body)
            parts.problem = InvalidRecord(
                "unreadable_record", "its parts cannot be told apart; value: the whole record"
            )
            return parts
        parts.raw_headers = bytes(body[at:])
        try:
            parts._read_headers(body, at)
        except (ValueError, IndexError):
            parts.problem = InvalidRecord(
                "unreadable_headers", f"only the first {len(parts.headers)} headers can be told apart"
            )
        return parts

    def _read_headers(self, body: bytearray, at: int) -> None:
        count, at = decode_varint(body, at)
        if count < 0:
            raise ValueError("less than no headers")
        strange = 0
        for _ in range(count):
            name, at = _sized(body, at)
            value, at = _sized(body, at)
            if name is None:
                raise ValueError("a header without a name")
            try:
                self.headers.append((name.decode(), value))
            except UnicodeDecodeError:
                strange += 1
        if at != len(body):
            raise ValueError("more than the headers")
        if strange:
            self.problem = InvalidRecord("unreadable_headers", f"{strange} names are not UTF-8")


def _sized(body: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(body, at)
    if length < 0:
        return None, at
    if at + length > len(body):
        raise ValueError("a length that leads out of the record")
    return bytes(body[at : at + length]), at + length
