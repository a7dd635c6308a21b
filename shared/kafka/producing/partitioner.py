"""Which partition a key belongs to: the default partitioner of Kafka's own clients, so that all producers agree."""

from __future__ import annotations

from aiokafka.partitioner import murmur2


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key`, 0 to ``partitions - 1``."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
