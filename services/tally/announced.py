"""Reading ``tallies.updated``: one record, or the whole topic once."""

from __future__ import annotations

from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from pydantic import ValidationError

from shared.contract.bounds import COMMAND_AHEAD, latest_time
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from shared.kafka.fetching import unpacking
from shared.kafka.fetching.unreadable import Unreadable
from shared.kafka.security import client_options
from shared.runtime.settings import KafkaSettings

UNREADABLE: Final = "unreadable"
FOREIGN: Final = "foreign"


class NoSnapshot(ValueError):
    """A record that tally cannot have written. ``kind`` is `UNREADABLE` or `FOREIGN`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def read_snapshot(record: ConsumerRecord[Any, Any]) -> TallyUpdated:
    """The snapshot in a record.

    Raises:
        NoSnapshot: the record is not a snapshot, or not one of tally's: its key is not its petition, or its epoch is in the
            future.
    """
    try:  # a tombstone (the petition's snapshot was deleted) has no value and is unreadable
        snapshot = TallyUpdated.model_validate_json(record.value or b"")
    except ValidationError:
        raise NoSnapshot(UNREADABLE) from None
    # By the brokers' clock. An accepted epoch far in the future could never be exceeded again.
    latest = latest_time(record.timestamp, record.timestamp_type, COMMAND_AHEAD)
    if record.key != snapshot.petition_id.encode() or snapshot.epoch > latest.timestamp() * 1000:
        raise NoSnapshot(FOREIGN)
    return snapshot


async def announced_now(settings: KafkaSettings) -> dict[str, TallyUpdated]:
    """The newest snapshot of every petition on the topic, as a new subscriber would read it.

    Raises:
        aiokafka.errors.KafkaError: Kafka is away.
    """
    unpacking.install()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **client_options(settings),
    )
    await consumer.start()
    try:
        return await _read_to_the_end(consumer)
    finally:
        await consumer.stop()


async def _read_to_the_end(consumer: AIOKafkaConsumer) -> dict[str, TallyUpdated]:
    await consumer.topics()  # loads the topic's partitions
    found: dict[str, TallyUpdated] = {}
    partitions = [
        TopicPartition(TALLIES_UPDATED.name, number)
        for number in sorted(consumer.partitions_for_topic(TALLIES_UPDATED.name) or ())
    ]
    consumer.assign(partitions)
    ends = dict(await consumer.end_offsets(partitions))
    while any([await consumer.position(tp) < end for tp, end in ends.items() if end]):
        for records in (await consumer.getmany(timeout_ms=500)).values():
            for record in records:
                if isinstance(record, Unreadable):
                    continue
                try:
                    snapshot = read_snapshot(record)
                except NoSnapshot:
                    continue
                known = found.get(snapshot.petition_id)
                if known is None or snapshot.version >= known.version:
                    found[snapshot.petition_id] = snapshot
    return found
