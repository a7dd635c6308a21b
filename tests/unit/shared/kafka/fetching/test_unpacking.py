"""Records that the Kafka client cannot unpack are skipped, and no others, with the client's own classes."""

import struct
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from shared.kafka.fetching import unpacking
from shared.kafka.fetching.unpacking import READS, FetchedBytes, UnpackedRecords
from shared.kafka.fetching.unreadable import Unreadable, refusing
from shared.runtime.failures import InvalidRecord
from tests.support.packing import (
    Change,
    bad_checksum,
    correct,
    negative_length,
    pack,
    rubbish,
    strange_name,
    unknown_codec,
)

TP = TopicPartition("topic", 3)
VALUES = [b"zero", b"one", b"two", b"three"]
HEAD = 61


@pytest.fixture(autouse=True)
def nothing_read_before() -> Iterator[None]:
    with patch.object(UnpackedRecords, "_reads", {}):
        yield


def at(offset: int, batch: bytearray) -> bytes:
    """The batch as the broker has placed it."""
    struct.pack_into(">q", batch, 0, offset)
    return bytes(batch)


def changed(change: Change, *, strange: int | None = 1, codec: int = 0) -> bytearray:
    batch = pack(VALUES, strange=strange, codec=codec)
    change(batch)
    return batch


class Partition:
    """What the client does with a partition: it fetches from its position, and unpacks."""

    def __init__(self, data: bytes, *, position: int = 0, most: int | None = None) -> None:
        self.data, self.position, self._most = data, position, most
        self.fetches = 0

    def fetch(self) -> list[ConsumerRecord[Any, Any]]:
        """One answer of the broker: it begins with the batch that the position is in."""
        begin = 0
        while begin + 27 <= len(self.data):
            base, length = struct.unpack_from(">qi", self.data, begin)
            (delta,) = struct.unpack_from(">i", self.data, begin + 23)
            if base + delta >= self.position or length < 0:
                break
            begin += 12 + length
        self.fetches += 1
        records = UnpackedRecords(TP, FetchedBytes(self.data[begin:]), [], self.position, None, None, True, 0)
        found: list[ConsumerRecord[Any, Any]] = []
        for record in records:
            found.append(record)
            assert records.next_fetch_offset > record.offset, "a batch may be cut after each record"
            if len(found) == self._most:
                break
        self.position = records.next_fetch_offset
        return found

    def read(self, until: int) -> list[ConsumerRecord[Any, Any]]:
        """Everything that is delivered before the position is reached."""
        found: list[ConsumerRecord[Any, Any]] = []
        while self.position < until:
            found += self.fetch()
            assert self.fetches < 100, "it stands still"
        assert self.position == until
        return found


def told(records: list[ConsumerRecord[Any, Any]]) -> list[tuple[int, Any]]:
    """Offsets with values, or with the reason why there is none."""
    return [
        (record.offset, record.error.reason if isinstance(record, Unreadable) else record.value) for record in records
    ]


GOOD = [(0, b"zero"), (1, b"one"), (2, b"two"), (3, b"three")]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("change", [strange_name, negative_length])
@pytest.mark.parametrize("most", [None, 1, 2])
def test_a_record_whose_headers_cannot_be_read_comes_in_its_place_among_the_others(
    change: Change, codec: int, most: int | None
) -> None:
    batch = changed(change)
    if codec:
        batch[HEAD:] = unpacking.codec.__dict__[f"{['', 'gzip', 'snappy', 'lz4', 'zstd'][codec]}_encode"](
            bytes(batch[HEAD:])
        )
        batch[22] = codec
        struct.pack_into(">i", batch, 8, len(batch) - 12)
        correct(batch)
    data = at(0, batch) + at(4, pack(VALUES))
    found = Partition(data, most=most).read(8)
    assert told(found) == [
        (0, b"zero"),
        (1, "unreadable_headers"),
        (2, b"two"),
        (3, b"three"),
        *((offset + 4, value) for offset, value in GOOD),
    ]
    bad = found[1]
    assert isinstance(bad, Unreadable)
    assert (bad.key, bad.value, bad.topic, bad.partition) == (b"key", b"one", "topic", 3)
    assert [name for name, _ in bad.headers] == ["ce_specversion", "ce_id", "ce_type"]
    assert b"strange" in bad.raw_headers
    assert bad.timestamp == 1_700_000_000_001
    good = found[2]
    same = Partition(at(0, pack(VALUES))).read(4)[2]
    assert good == same, "read here or by the client, it is the same record"


@pytest.mark.parametrize("change", [unknown_codec, rubbish(1), rubbish(2), rubbish(3), rubbish(4)])
def test_a_batch_that_cannot_be_unpacked_is_passed_over_at_once_and_kept_whole(change: Change) -> None:
    bad = at(4, changed(change))
    partition = Partition(at(0, pack(VALUES)) + bad + at(8, pack(VALUES)))
    found = partition.read(12)
    assert told(found) == [*GOOD, (7, "unreadable_batch"), *((offset + 8, value) for offset, value in GOOD)]
    assert isinstance(found[4], Unreadable)
    assert (found[4].first_offset, found[4].value) == (4, bad)
    assert partition.fetches == 1, "its checksum is right: it will not get better"


def test_bytes_that_disagree_with_their_checksum_are_fetched_again_before_they_are_passed_over() -> None:
    bad = at(4, changed(bad_checksum))
    partition = Partition(at(0, pack(VALUES)) + bad + at(8, pack(VALUES)))
    assert told(partition.fetch()) == GOOD, "what comes before is delivered"
    for _ in range(READS - 2):
        assert (partition.fetch(), partition.position) == ([], 4)
    found = partition.fetch()
    assert told(found) == [(7, "unreadable_batch"), *((offset + 8, value) for offset, value in GOOD)]
    assert (partition.fetches, partition.position) == (READS, 12)


def test_what_a_network_garbles_now_and_then_is_never_passed_over() -> None:
    good = at(0, pack(VALUES))
    partition = Partition(good)
    for bit in range(3 * READS):
        garbled = bytearray(good)
        garbled[-1 - bit] ^= 1
        partition.data = bytes(garbled)
        assert (partition.fetch(), partition.position) == ([], 0)
    partition.data = good
    assert told(partition.fetch()) == GOOD


@pytest.mark.parametrize(
    ("delta", "position"), [(0, 0), (2, 0), (2, 2), (2_000_000_000, 0), (2_000_000_000, 2), (2_000_000_000, 3)]
)
def test_a_spoilt_head_leads_neither_backwards_nor_out_of_the_topic(delta: int, position: int) -> None:
    bad = pack(VALUES)
    struct.pack_into(">i", bad, 23, delta)
    end_known = Partition(at(0, bytearray(bad)) + at(4, pack(VALUES)), position=position)
    assert told(end_known.read(8)) == [(3, "unreadable_batch"), *((offset + 4, value) for offset, value in GOOD)]
    UnpackedRecords._reads.clear()
    last = Partition(at(0, bytearray(bad)), position=position)
    before = position
    for _ in range(READS):
        last.fetch()
        assert before <= last.position <= before + 1
        before = last.position
    assert before == position + 1


@pytest.mark.parametrize("length", [-5, 3, 1_000_000])
def test_where_no_batch_can_be_told_apart_reading_goes_on_step_by_step(length: int) -> None:
    bad = pack(VALUES)
    struct.pack_into(">i", bad, 8, length)
    partition = Partition(at(0, bad))
    for _ in range(READS - 1):
        assert (partition.fetch(), partition.position) == ([], 0)
    assert told(partition.fetch()) == [(0, "unreadable_batch")]
    assert partition.position == 1


def test_records_that_memory_cannot_be_had_for_are_tried_again_and_then_kept_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(unpacking._PartitionRecords, "_consumer_record", lambda self, *_: no_memory(self))
    batch = at(0, pack(VALUES))
    partition = Partition(batch)
    for _ in range(READS - 1):
        assert partition.fetch() == []
    [found] = partition.fetch()
    assert (found.offset, found.value) == (3, batch)


def record_lengths(batch: bytearray) -> list[int]:
    """The offset of each record's length."""
    places, place = [], HEAD
    while place < len(batch):
        places.append(place)
        length, begin = unpacking.decode_varint(batch, place)
        place = begin + length
    return places


def test_a_record_whose_parts_cannot_be_told_apart_is_kept_whole_and_the_others_are_read() -> None:
    batch = pack(VALUES)
    place = record_lengths(batch)[1]
    _, body = unpacking.decode_varint(batch, place)
    key_at = batch.index(b"\x06key", body)
    batch[key_at : key_at + 2] = b"\xfe\x0f"  # a key of 1,023 bytes
    correct(batch)
    found = Partition(at(0, batch)).read(4)
    assert told(found) == [(0, b"zero"), (1, "unreadable_record"), (2, b"two"), (3, b"three")]
    assert b"one" in found[1].value


@pytest.mark.parametrize("count", [2, 9, 2_000_000_000, -1])
def test_a_batch_that_counts_its_records_wrongly_delivers_them_and_is_told(count: int) -> None:
    batch = pack(VALUES)
    struct.pack_into(">i", batch, 57, count)
    correct(batch)
    started = time.monotonic()
    found = Partition(at(0, batch)).read(4)
    assert time.monotonic() - started < 60
    assert told(found)[-1] == (3, "unreadable_batch")
    assert told(found)[:-1] == GOOD[: max(0, min(count, 4))]


def test_a_length_that_leads_out_of_the_batch_ends_it_there() -> None:
    batch = pack(VALUES)
    batch[record_lengths(batch)[2]] = 0x7D
    correct(batch)
    assert told(Partition(at(0, batch)).read(4)) == [*GOOD[:2], (3, "unreadable_batch")]


def test_what_is_unreadable_is_refused_with_its_reason_and_all_else_is_decoded() -> None:
    seen: list[Unreadable] = []
    decode = refusing(lambda record: record.value, seen.append)
    records = Partition(at(0, changed(strange_name))).read(4)
    assert decode(records[0]) == b"zero"
    with pytest.raises(InvalidRecord, match="unreadable_headers: 1 names are not UTF-8"):
        decode(records[1])
    assert seen == [records[1]]


# ------------------------------------------------------------------------------------------- what the client itself does


def test_the_client_still_fails_in_the_way_that_is_mended_here() -> None:
    """When this fails, aiokafka has changed: check whether `shared.kafka.fetching.unpacking` is still needed."""
    names = Fetcher._proc_fetch_request.__code__.co_names
    assert {"MemoryRecords", "PartitionRecords"} <= set(names), "what `install` replaces"
    client = unpacking._PartitionRecords
    for change, error in ((strange_name, UnicodeDecodeError), (bad_checksum, CorruptRecordException)):
        records = client(TP, MemoryRecords(at(0, changed(change))), [], 0, None, None, True, 0)
        with pytest.raises(error):
            list(records)


async def test_the_client_delivers_what_is_passed_over_and_moves_its_position_with_it() -> None:
    class Assigned:
        """The part of an assignment that the client reads."""

        active, paused, position = True, False, 0

        def state_value(self, _: TopicPartition) -> "Assigned":
            return self

        def consumed_to(self, position: int) -> None:
            self.position = position

    assigned = Assigned()
    data = at(0, changed(strange_name)) + at(4, changed(unknown_codec))
    records = UnpackedRecords(TP, FetchedBytes(data), [], 0, None, None, True, 0)
    result = FetchResult(TP, assignment=assigned, partition_records=records, backoff=0)
    assert [record.offset for record in result.getall(2)] == [0, 1]
    assert assigned.position == 2
    assert [record.offset for record in result.getall(10)] == [2, 3, 7]
    assert assigned.position == 8
    assert not result.has_more()
