"""What the Kafka client could not unpack, as a record among the others; made by `shared.kafka.fetching.unpacking`."""

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

    A batch has its bytes, as they are stored, for its value.
    """

    error: InvalidRecord
    first_offset: int
    """The same as `offset`, but for a batch."""
    raw_headers: bytes
    """A record's headers as they were packed, names and all."""

    @property
    def is_batch(self) -> bool:
        """Whether this stands for a batch: several records, perhaps, of which none could be read."""
        return self.error.reason == "unreadable_batch"


def refusing(
    decode: Callable[[ConsumerRecord[Any, Any]], T], on_unreadable: Callable[[Unreadable], None]
) -> Callable[[ConsumerRecord[Any, Any]], T]:
    """`decode`, which raises `InvalidRecord` for what is `Unreadable` too, after `on_unreadable` has seen it."""

    def read(record: ConsumerRecord[Any, Any]) -> T:
        if type(record) is Unreadable:
            on_unreadable(record)
            raise record.error
        return decode(record)

    return read


def log_unreadable(record: Unreadable) -> None:
    """Log what was passed over and where it stands; nothing of its content."""
    log.error(
        "batch_unreadable" if record.is_batch else "record_unreadable",
        topic=record.topic,
        partition=record.partition,
        first_offset=record.first_offset,
        last_offset=record.offset,
        cause=record.error.detail,
    )
