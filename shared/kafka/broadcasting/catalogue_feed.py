"""Fills a `Catalogue` from ``petitions.changed``: every instance reads the whole compacted topic, then follows it."""

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
"""Offsets without a record can be passed without anybody being told, so `catch_up` looks again after so long."""


class CatalogueBehind(ConnectionError):
    """The catalogue does not hold yet what is on the topic. Transient: hold and try again."""


class KeyMismatch(ValueError):
    """A record whose key is not the id of the petition in it."""


class _Said(NamedTuple):
    """What the newest record of a petition in one partition says; ``petition`` is None after a tombstone."""

    timestamp: int
    petition: PetitionChanged | None
    version: int
    """The highest that stood in the partition so far."""


class CatalogueFeed:
    """Reads ``petitions.changed`` without a consumer group, from its beginning, and applies each record.

    A record that cannot be read, or used, is counted and logged, and the petition's last good state stays. It is not moved
    to a dead-letter topic: it stays on the compacted topic, every instance would move it again at every start. No record
    keeps a service from starting.

    The key and the value must name the same petition: compaction and the order of changes go by the key. The headers
    ``ce_subject`` and ``content-type`` are for those who route events; nothing here depends on them, and a change is not
    refused for them.

    Order is per partition, so of a petition's records only those in the partition of its key follow each other. One that
    stands elsewhere was written before partitions were added, or by a producer of another opinion: the newest of these
    serves as long as there is none in the petition's own partition, in whatever order the partitions are read.

    Within a partition a record whose version is below one before it is passed over (`docs/adr/0014`): its writer was
    overtaken before it wrote. Should such a record be the last one, compaction would leave that one alone; `overtaken` says
    so until the newest state has been written again.
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
        self._partitions = 0  # as many as the topic had when its records were last put in order
        self._complete = asyncio.Event()
        self._applied = asyncio.Event()
        self._unreadable = Counter(
            "groundswell_catalogue_unreadable_records",
            "Records of petitions.changed that could not be read or used; the petition keeps its last good state",
            registry=registry,
        )
        self._unreadable_batches = Counter(
            "groundswell_catalogue_unreadable_batches",
            "Batches of petitions.changed that could not be unpacked and were passed over",
            registry=registry,
        )
        self._misplaced = Counter(
            "groundswell_catalogue_misplaced_records",
            "Records of petitions.changed that stand in another partition than their key's, and lose against one there",
            registry=registry,
        )
        self._overtaken_records = Counter(
            "groundswell_catalogue_overtaken_records",
            "Records of petitions.changed with a lower version than one before them, which are passed over",
            registry=registry,
        )
        petitions = Gauge("groundswell_catalogue_petitions", "Petitions this process knows", registry=registry)
        petitions.set_function(lambda: len(catalogue))

    def subscribe(self, broker: FastStreamBroker) -> None:
        """Register the subscriber. Call before the broker starts."""
        self._reader.subscribe(broker)

    @property
    def complete(self) -> bool:
        """Whether everything has been applied that was on the topic when this process started."""
        return self._complete.is_set()

    def overtaken(self) -> list[PetitionChanged]:
        """The newest states that are not the last record of their petition: another one came late, and was passed over."""
        found = (self._catalogue.get(petition_id) for petition_id in self._overtaken)
        return [petition for petition in found if petition is not None]

    async def check(self) -> str | None:
        """Readiness: has everything been read that was on the topic when this process started?"""
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
        """Notice that the catalogue is complete, also while nobody asks for readiness. Kafka may be away meanwhile.

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
        """Wait until everything has been applied that is on the topic now.

        After this, a petition that another service knew when it wrote an event is known here too.

        Raises:
            CatalogueBehind: not caught up within five seconds; Kafka is away or slow, trying again later can help.
        """
        consumer = self._reader.consumer
        if consumer is None:
            raise CatalogueBehind("petitions.changed is not being read yet")
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                ends = await self._ends(consumer)  # the client would ask a Kafka that is away for 40 seconds
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
        """The offset after the last record, by partition."""
        ends = await consumer.end_offsets(list(consumer.assignment()))
        return {tp.partition: end for tp, end in ends.items()}

    async def _behind(self, ends: dict[int, int]) -> int:
        return sum([max(0, end - await self._reader.done(partition)) for partition, end in ends.items() if end])

    async def _on_records(self, records: Records) -> None:
        await self._note_partitions()
        for record in records:
            try:
                await self._apply(record)
            except Exception as error:  # noqa: BLE001  whatever one record does, the service goes on and starts again
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
        """Partitions may have been added: then other records are the ones that stand where their key says."""
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
        """The partition whose record of `key` counts."""
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
    """The petition in a record.

    Raises:
        NotACloudEvent: the headers are not those of this event.
        pydantic.ValidationError: the value is not this event, or a time in it is none of the calendar in UTC.
    """
    _, event_type = read_attributes(record.headers)
    if event_type != PetitionChanged.TYPE:
        raise NotACloudEvent(f"type {event_type} does not belong on this topic")
    return _of_the_present(PetitionChanged.model_validate_json(record.value or b""), record)


def _of_the_present(petition: PetitionChanged, record: ConsumerRecord[Any, Any]) -> PetitionChanged:
    """The petition, changed when its record arrived if it says another day, and without a version that lies further ahead.

    The state holds. But where the latest change of several petitions is looked for, one from a clock in the year 2101 would
    be it for ever, and above such a version there would be no room for the next one.
    """
    changes: dict[str, object] = {}
    if not fit(record, COMMAND_AHEAD, petition.changed_at):
        arrived = arrival(record.timestamp, record.timestamp_type)
        changes["changed_at"] = EARLIEST if arrived is None else as_time(arrived)
    latest = latest_time(record.timestamp, record.timestamp_type, COMMAND_AHEAD)
    if petition.version > latest.timestamp() * 1000:
        changes["version"] = 0
    return petition.model_copy(update=changes) if changes else petition
