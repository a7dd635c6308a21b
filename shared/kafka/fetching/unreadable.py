"""Records that the Kafka client could not unpack; `shared.kafka.fetching.unpacking` creates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from aiokafka import ConsumerRecord

from shared.runtime.failures import InvalidRecord

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass
class Unreadable(ConsumerRecord[Any, Any]):
    """A record, or a whole batch, that the Kafka client could not unpack, with what could be read of it.

    The value of a batch is its bytes as they are stored.
    """

    error: InvalidRecord
    first_offset: int
    """The first offset of a batch; for a record the same as `offset`."""
    raw_headers: bytes
    """A record's headers, including their names, as they are encoded."""

    @property
    def is_batch(self) -> bool:
        """Whether this stands for a batch, of which no record could be read."""
        return self.error.reason == "unreadable_batch"


def refusing(
    decode: Callable[[ConsumerRecord[Any, Any]], T], on_unreadable: Callable[[Unreadable], None]
) -> Callable[[ConsumerRecord[Any, Any]], T]:
    """Wrap `decode` so that it also raises `InvalidRecord` for an `Unreadable`, after calling `on_unreadable` with it."""

    def read(record: ConsumerRecord[Any, Any]) -> T:
        if type(record) is Unreadable:
            on_unreadable(record)
            raise record.error
        return decode(record)

    return read


def log_unreadable(record: Unreadable) -> None:
    """Log the coordinates of what was skipped, and nothing of its content."""
    log.error(
        "batch_unreadable" if record.is_batch else "record_unreadable",
        topic=record.topic,
        partition=record.partition,
        first_offset=record.first_offset,
        last_offset=record.offset,
        cause=record.error.detail,
    )
