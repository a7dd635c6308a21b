"""Fills a `Catalogue` from ``petitions.changed``: every instance reads the whole compacted topic and then follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from prometheus_client import CollectorRegistry, Counter, Gauge

from shared.contract.bounds import COMMAND_AHEAD, EARLIEST, arrival, as_time, fit, latest_time
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.broadcasting.broadcast import BroadcastReader
from shared.kafka.fetching.unreadable import Unreadable
from shared.kafka.producing.partitioner import partition_of
from shared.kafka.records.headers import NotACloudEvent, read_attributes
from shared.kafka.registration import FastStreamBroker, Records
from shared.runtime.failures import is_transient

log = structlog.get_logger(__name__)


_CATCH_UP_SECONDS = 5.0

_COMPLETE_POLL_SECONDS = 0.1

_LOOK_SECONDS = 0.05
"""How often `catch_up` checks the position: no event announces that the client has passed offsets without a record."""


class CatalogueBehind(ConnectionError):
    """The catalogue has not caught up with the topic. Transient: retry."""


class KeyMismatch(ValueError):
    """A record's key is not the id of the petition in its value."""


class _Said(NamedTuple):
    """The content of a petition's newest record in one partition; ``petition`` is None after a tombstone."""

    timestamp: int
    petition: PetitionChanged | None
    version: int
    """The highest version in the partition so far."""


class CatalogueFeed:
    """Reads ``petitions.changed`` without a consumer group, from its beginning, and applies each record.

    A record that cannot be read or applied is counted and logged, and the petition keeps its last valid state. It does not
    become a dead letter: it stays on the compacted topic, so every instance would move it again at every start. No record
    prevents a service from starting.

    The key and the value must name the same petition: compaction and the order of changes depend on the key. The headers
    ``ce_subject`` and ``content-type`` serve to route events; they are not used here, and no change is refused because of
    them.

    Order is per partition, so only a petition's records in the partition of its key are ordered. A record in another
    partition was written before partitions were added, or by a producer with another partitioner. The newest such record
    applies only while the petition's own partition has none, whatever the order in which partitions are read.

    Within a partition, a record with a lower version than an earlier one is skipped (`docs/adr/0014`): its writer was
    overtaken. If such a record is the last one, it is the one that compaction keeps; `overtaken` returns the petition until
    its newest state has been written again.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        registry: CollectorRegistry,
        *,
        on_bug: Callable[[BaseException], None],
        on_change: Callable[[PetitionChanged], Awaitable[None]] | None = None,
    ) -> None:
        self._catalogue, self._on_change = catalogue, on_change
        self._reader = BroadcastReader(
            PETITIONS_CHANGED,
            self._on_records,
            start="earliest",
            on_bug=on_bug,
            on_unreadable=self._count_unreadable,
        )
        self._at_start: dict[int, int] | None = None
        self._said: dict[str, dict[int, _Said]] = {}
        self._overtaken: set[str] = set()
        self._partitions = 0  # of the topic, when `_note_partitions` last looked
        self._complete = asyncio.Event()
        self._applied = asyncio.Event()
        self._unreadable = Counter(
            "groundswell_catalogue_unreadable_records",
            "Records of petitions.changed that could not be read or applied; the petition keeps its last valid state",
            registry=registry,
        )
        self._unreadable_batches = Counter(
            "groundswell_catalogue_unreadable_batches",
            "Batches of petitions.changed that could not be unpacked and were skipped",
            registry=registry,
        )
        self._misplaced = Counter(
            "groundswell_catalogue_misplaced_records",
            "Records of petitions.changed outside their key's partition, ignored in favour of a record in it",
            registry=registry,
        )
        self._overtaken_records = Counter(
            "groundswell_catalogue_overtaken_records",
            "Records of petitions.changed skipped because their version is lower than that of an earlier record",
            registry=registry,
        )
        petitions = Gauge("groundswell_catalogue_petitions", "Petitions in this process's catalogue", registry=registry)
        petitions.set_function(lambda: len(catalogue))

    def subscribe(self, broker: FastStreamBroker) -> None:
        """Register the subscriber. Call before the broker starts."""
        self._reader.subscribe(broker)

    @property
    def complete(self) -> bool:
        """Whether all records have been applied that were on the topic when this process started."""
        return self._complete.is_set()

    def overtaken(self) -> list[PetitionChanged]:
        """Return the newest states that are not their petition's last record: a later record was skipped as overtaken."""
        found = (self._catalogue.get(petition_id) for petition_id in self._overtaken)
        return [petition for petition in found if petition is not None]

    async def check(self) -> str | None:
        """Readiness check: all records have been applied that were on the topic when this process started."""
        if self.complete:
            return None
        consumer = self._reader.consumer
        if consumer is None:
            return "petitions.changed is not being read yet"
        if self._at_start is None:
            self._at_start = await self._ends(consumer)
        behind = await self._behind(self._at_start)
        if behind:
            return f"{behind} records of petitions.changed still to read"
        self._complete.set()
        return None

    async def look_until_complete(self) -> None:
        """Poll until the catalogue is complete, independent of readiness requests, also while Kafka is away.

        Raises:
            Exception: a bug.
        """
        while not self.complete:
            try:
                await self.check()
            except Exception as error:
                if not is_transient(error):
                    raise
            await asyncio.sleep(_COMPLETE_POLL_SECONDS)

    async def catch_up(self) -> None:
        """Wait until all records have been applied that are on the topic now.

        After that, every petition that another service knew when it wrote an event is known here too.

        Raises:
            CatalogueBehind: not caught up within five seconds: Kafka is away or slow. Retry later.
        """
        consumer = self._reader.consumer
        if consumer is None:
            raise CatalogueBehind("petitions.changed is not being read yet")
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                ends = await self._ends(consumer)  # without the timeout, 40 seconds while Kafka is away
                while await self._behind(ends):
                    self._applied.clear()
                    await self._more_applied()
        except TimeoutError:
            raise CatalogueBehind("not all of petitions.changed was read in time") from None
        self._complete.set()

    async def _more_applied(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._applied.wait()
        except TimeoutError:
            pass

    @staticmethod
    async def _ends(consumer: AIOKafkaConsumer) -> dict[int, int]:
        """Return the end offsets, by partition."""
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return {tp.partition: end for tp, end in ends.items()}

    async def _behind(self, ends: dict[int, int]) -> int:
        return sum([max(0, end - await self._reader.done(partition)) for partition, end in ends.items() if end])

    async def _on_records(self, records: Records) -> None:
        await self._note_partitions()
        for record in records:
            try:
                await self._apply(record)
            except Exception as error:  # noqa: BLE001  no record may stop the service or prevent its next start
                self._unreadable.inc()
                log.error(
                    "petition_unreadable",
                    partition=record.partition,
                    offset=record.offset,
                    cause=type(error).__name__,
                )
        self._applied.set()

    def _count_unreadable(self, record: Unreadable) -> None:
        (self._unreadable_batches if record.is_batch else self._unreadable).inc()

    async def _apply(self, record: ConsumerRecord[Any, Any]) -> None:
        petition = None if record.value is None else _read(record)
        key = (record.key or b"").decode()
        if petition is not None and petition.petition_id != key:
            raise KeyMismatch
        said = self._said.setdefault(key, {})
        highest = said[record.partition].version if record.partition in said else 0
        version = 0 if petition is None else petition.version
        if 0 < version < highest:
            self._overtaken.add(key)
            self._overtaken_records.inc()
            log.warning("petition_overtaken", petition_id=key, partition=record.partition, offset=record.offset)
            return
        self._overtaken.discard(key)
        said[record.partition] = _Said(record.timestamp, petition, max(highest, version))
        decisive = self._decisive(key)
        if decisive != record.partition:
            self._misplaced.inc()
            log.warning("petition_misplaced", partition=record.partition, offset=record.offset, instead_of=decisive)
            return
        await self._take_over(key, petition)

    async def _note_partitions(self) -> None:
        """Apply the records that are decisive after partitions were added: keys may belong to other partitions now."""
        consumer = self._reader.consumer
        partitions = len(consumer.partitions_for_topic(PETITIONS_CHANGED.name) or ()) if consumer is not None else 0
        if partitions == self._partitions:
            return
        self._partitions = partitions
        for key, said in self._said.items():
            petition = said[self._decisive(key)].petition
            if petition is not self._catalogue.get(key):
                await self._take_over(key, petition)

    def _decisive(self, key: str) -> int:
        """Return the partition whose record of `key` applies."""
        said = self._said[key]
        home = partition_of(key.encode(), self._partitions) if self._partitions else None
        return home if home in said else max(said, key=lambda partition: said[partition].timestamp)

    async def _take_over(self, key: str, petition: PetitionChanged | None) -> None:
        if petition is None:
            self._catalogue.remove(key)
            return
        self._catalogue.apply(petition)
        if self._on_change is not None:
            try:
                await self._on_change(petition)
            except Exception as error:  # noqa: BLE001  see `_on_records`
                self._unreadable.inc()
                log.error("petition_change_failed", petition=key, cause=type(error).__name__)


def _read(record: ConsumerRecord[Any, Any]) -> PetitionChanged:
    """Return the petition in a record.

    Raises:
        NotACloudEvent: the headers are not those of this event.
        pydantic.ValidationError: the value is not this event, or a time in it is outside the calendar in UTC.
    """
    _, event_type = read_attributes(record.headers)
    if event_type != PetitionChanged.TYPE:
        raise NotACloudEvent(f"type {event_type} does not belong on this topic")
    return _of_the_present(PetitionChanged.model_validate_json(record.value or b""), record)


def _of_the_present(petition: PetitionChanged, record: ConsumerRecord[Any, Any]) -> PetitionChanged:
    """Correct an implausible time of change to the record's arrival, and a version too far ahead to 0.

    The rest of the state is valid. But a change from a clock in the year 2101 would be the latest of all petitions for
    ever, and the next change of this petition could not have a higher version.
    """
    changes: dict[str, object] = {}
    if not fit(record, COMMAND_AHEAD, petition.changed_at):
        arrived = arrival(record.timestamp, record.timestamp_type)
        changes["changed_at"] = EARLIEST if arrived is None else as_time(arrived)
    latest = latest_time(record.timestamp, record.timestamp_type, COMMAND_AHEAD)
    if petition.version > latest.timestamp() * 1000:
        changes["version"] = 0
    return petition.model_copy(update=changes) if changes else petition
