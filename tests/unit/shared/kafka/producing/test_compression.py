"""Which topic is compressed how: what is for others so that every Kafka client can read it."""

import gzip
import sys

import pytest
from aiokafka import AIOKafkaProducer, codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from shared.contract.topics import SIGNATURES_SUBMITTED, Compression, all_topics, compression_of
from shared.kafka.producing import compression

_HEAD_BYTES = 61  # of a batch: https://kafka.apache.org/documentation/#recordbatch
_EXTRA_FLAGS_AT = (
    8  # of a gzip stream: 4 where the fastest method was used, 2 where the slowest (RFC 1952, section 2.3.1)
)


def sent(compression_of_batch: Compression, value: bytes = b"0123456789" * 100) -> bytes:
    """A batch of one record, as it is sent."""
    batch = compression.new_batch(compression_of_batch, most_bytes=100_000)
    batch.append(timestamp=None, key=b"key", value=value, headers=[])
    return bytes(batch._build())


@pytest.fixture
def _levels_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the test the client's own is back."""
    module = sys.modules[DefaultRecordBatchBuilder.__module__]
    monkeypatch.setattr(module, "gzip_encode", codec.gzip_encode)
    compression.install()


def test_every_topic_but_the_internal_one_is_compressed_with_gzip_whatever_is_set() -> None:
    others = [topic.name for topic in all_topics() if topic is not SIGNATURES_SUBMITTED]
    choices: list[Compression] = ["none", "gzip", "lz4"]
    for chosen in choices:
        assert {compression_of(name, internal=chosen) for name in others} == {"gzip"}
        assert compression_of(SIGNATURES_SUBMITTED.name, internal=chosen) == chosen


def test_brokers_leave_every_batch_as_it_was_sent() -> None:
    assert {topic.config()["compression.type"] for topic in all_topics()} == {"producer"}


@pytest.mark.usefixtures("_levels_as_installed")
@pytest.mark.parametrize(("name", "number"), [("none", 0), ("gzip", 1), ("lz4", 3)])
def test_a_batch_has_the_compression_that_it_was_made_with(name: Compression, number: int) -> None:
    batch = MemoryRecords(sent(name)).next_batch()
    assert batch is not None
    assert batch.compression_type == number
    assert [record.value for record in batch] == [b"0123456789" * 100]


@pytest.mark.usefixtures("_levels_as_installed")
def test_gzip_takes_the_fastest_level_and_the_result_is_what_any_gzip_reads() -> None:
    stream = sent("gzip")[_HEAD_BYTES:]
    assert stream[_EXTRA_FLAGS_AT] == 4
    assert b"0123456789" * 100 in gzip.decompress(stream)


@pytest.mark.usefixtures("_levels_as_installed")
async def test_the_client_by_itself_would_take_the_slowest_level(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = AIOKafkaProducer(compression_type="gzip")
    batch = producer.create_batch()
    batch.append(timestamp=None, key=b"key", value=b"0123456789" * 100, headers=[])
    monkeypatch.setattr(sys.modules[DefaultRecordBatchBuilder.__module__], "gzip_encode", codec.gzip_encode)
    assert bytes(batch._build())[_HEAD_BYTES:][_EXTRA_FLAGS_AT] == 2
    await producer.stop()
