"""The topics: names, keys, partitions, retention.

Services never create topics: a typo in a name or a broker's default retention would then decide what is kept.
`shared.kafka.apply_topics` creates them as defined here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from shared.contract.events import (
    ConfirmCommand,
    EraseCommand,
    Event,
    InvalidateCommand,
    MilestoneReached,
    PetitionChanged,
    SignatureRejected,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    TallyUpdated,
    WithdrawCommand,
)

DEFAULT_PARTITIONS: Final = 6
"""Divides evenly among 1, 2, 3 and 6 instances of a service, of which one suffices for 10,000 signatures a second. Each
additional partition makes all batches smaller, and the cost is per batch (docs/performance-notes.md)."""

MAX_RECORD_BYTES: Final = 1_048_588
"""Kafka's own default for one record batch (message.max.bytes)."""

DLQ_MAX_RECORD_BYTES: Final = 2 * MAX_RECORD_BYTES
"""A dead letter is the unchanged record and some more headers: it must fit even if the record had the maximum size."""


_DLQ_SUFFIX: Final = ".dlq"

Compression = Literal["none", "gzip", "lz4"]

_FOR_EVERYBODY: Final[Compression] = "gzip"
"""The one compression that every Kafka client can read without additional packages. aiokafka needs one for lz4, snappy
and zstd; kafkajs cannot read them at all, and a consumer that cannot read a batch makes no progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic and its contract."""

    name: str
    key: str
    """Description of the record key."""
    holds: str
    """Description of the records."""
    events: tuple[type[Event], ...]
    retention: timedelta | None = None
    """``None``: the topic is compacted; the last record of each key is kept for ever."""
    max_record_bytes: int = MAX_RECORD_BYTES
    partitions: int = DEFAULT_PARTITIONS
    internal: bool = False
    """Only Groundswell's own services read it. Its compression is a setting; that of all other topics is gzip."""

    @property
    def dlq(self) -> str:
        """The name of this topic's dead-letter topic."""
        return f"{self.name}{_DLQ_SUFFIX}"

    def config(self) -> dict[str, str]:
        """Return the topic's configuration, with Kafka's names."""
        if self.retention is None:
            kept = {"cleanup.policy": "compact"}
        else:
            kept = {"cleanup.policy": "delete", "retention.ms": str(int(self.retention.total_seconds() * 1000))}
        return {
            **kept,
            "max.message.bytes": str(self.max_record_bytes),
            # Batches stay as they were sent: a broker that recompresses them might choose a codec that some subscribers
            # cannot read.
            "compression.type": "producer",
            # The time of arrival, by the broker's clock. With the producer's time, Kafka refuses records from a clock that
            # is an hour ahead, and at once deletes records from one that is behind by more than the retention.
            "message.timestamp.type": "LogAppendTime",
        }


SIGNATURES_SUBMITTED: Final = Topic(
    name="signatures.submitted.v1",
    key="signer key",
    holds="commands: sign, confirm, withdraw, invalidate, erase (personal data)",
    events=(SignCommand, ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand),
    retention=timedelta(days=7),
    internal=True,
)
SIGNATURES_VERIFIED: Final = Topic(
    name="signatures.verified.v1",
    key="petition id",
    holds="facts that count: verified (+1), revoked (-1), each with lane and position",
    events=(SignatureVerified, SignatureRevoked),
    retention=timedelta(days=30),
)
SIGNATURES_REJECTED: Final = Topic(
    name="signatures.rejected.v1",
    key="petition id",
    holds="facts: duplicate or rejected, with a reason code",
    events=(SignatureRejected,),
    retention=timedelta(days=30),
)
PETITIONS_CHANGED: Final = Topic(
    name="petitions.changed.v1", key="petition id", holds="the whole state of a petition", events=(PetitionChanged,)
)
TALLIES_UPDATED: Final = Topic(
    name="tallies.updated.v1",
    key="petition id",
    holds="the live count: count, revision, break-downs (at most four a second per petition)",
    events=(TallyUpdated,),
)
MILESTONES_REACHED: Final = Topic(
    name="milestones.reached.v1",
    key="petition id",
    holds="a threshold was crossed: threshold, count, revision, time",
    events=(MilestoneReached,),
    retention=timedelta(days=365),
)

TOPICS: Final = (
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    SIGNATURES_REJECTED,
    PETITIONS_CHANGED,
    TALLIES_UPDATED,
    MILESTONES_REACHED,
)


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group of Groundswell; its members share the partitions of one topic."""

    name: str
    topic: Topic


VERIFY_GROUP: Final = Group("groundswell-verify", SIGNATURES_SUBMITTED)
TALLY_GROUP: Final = Group("groundswell-tally", SIGNATURES_VERIFIED)
NOTIFY_GROUP: Final = Group("groundswell-notify", MILESTONES_REACHED)

GROUPS: Final = (VERIFY_GROUP, TALLY_GROUP, NOTIFY_GROUP)

CONSUMED: Final = tuple(group.topic for group in GROUPS)
"""Topics that a consumer group of Groundswell reads; these have a DLQ. Readers of compacted topics report an invalid
record and keep the last valid state; the record stays on its topic."""


def max_record_bytes(topic: str) -> int:
    """Return the maximum record size of a topic, by its name, in bytes."""
    return DLQ_MAX_RECORD_BYTES if topic.endswith(_DLQ_SUFFIX) else MAX_RECORD_BYTES


_INTERNAL: Final = frozenset(topic.name for topic in TOPICS if topic.internal)


def compression_of(topic: str, *, internal: Compression) -> Compression:
    """Return how batches of a topic are compressed, by its name; `internal` is the compression of internal topics."""
    return internal if topic in _INTERNAL else _FOR_EVERYBODY


def all_topics() -> tuple[Topic, ...]:
    """Return every topic that must exist, including the dead-letter topics."""
    dead = tuple(
        Topic(
            name=topic.dlq,
            key="as the source",
            holds=f"records of {topic.name} that could not be read, untouched, with the reason in headers",
            events=(),
            retention=timedelta(days=90),
            max_record_bytes=DLQ_MAX_RECORD_BYTES,
        )
        for topic in CONSUMED
    )
    return TOPICS + dead
