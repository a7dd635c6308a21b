"""The topics: names, keys, events, retention. `shared.kafka.topics` creates them."""

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
"""Divides evenly among 1, 2, 3 and 6 instances of a service, of which one does for 10,000 signatures a second. Each more
makes every batch smaller, and it is batches that cost (docs/adr/0010)."""

MAX_RECORD_BYTES: Final = 1_048_588
"""Kafka's own default for one record batch (message.max.bytes)."""

DLQ_MAX_RECORD_BYTES: Final = 2 * MAX_RECORD_BYTES
"""A dead letter is the record, untouched, and some headers: it must fit even if the record was as large as allowed."""


_DLQ_SUFFIX: Final = ".dlq"

Compression = Literal["none", "gzip", "lz4"]

_FOR_EVERYBODY: Final[Compression] = "gzip"
"""The one compression that every Kafka client can read as it is installed. aiokafka needs another package for lz4, snappy
and zstd; kafkajs cannot read them at all, and a consumer that cannot read a batch stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic and its contract."""

    name: str
    key: str
    """What the record key is, in words."""
    holds: str
    """What the records say, in words."""
    events: tuple[type[Event], ...]
    retention: timedelta | None = None
    """``None``: compacted, the last record of each key stays for ever."""
    max_record_bytes: int = MAX_RECORD_BYTES
    partitions: int = DEFAULT_PARTITIONS
    internal: bool = False
    """Only Groundswell's own services read it. Its compression is a setting; that of all other topics is gzip."""

    @property
    def dlq(self) -> str:
        """The name of the topic that takes this topic's dead letters."""
        return f"{self.name}{_DLQ_SUFFIX}"

    def config(self) -> dict[str, str]:
        """The topic's configuration as Kafka names it."""
        if self.retention is None:
            kept = {"cleanup.policy": "compact"}
        else:
            kept = {"cleanup.policy": "delete", "retention.ms": str(int(self.retention.total_seconds() * 1000))}
        return {
            **kept,
            "max.message.bytes": str(self.max_record_bytes),
            # Batches stay as they were sent. A broker that compresses them anew would put them into a form that some
            # subscribers cannot read.
            "compression.type": "producer",
            # The time of arrival, by the broker's clock. With the producer's, Kafka refuses what comes from a clock an
            # hour ahead, and deletes at once what comes from one that is behind by more than the retention.
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
    """A consumer group of ours: its members share the partitions of one topic."""

    name: str
    topic: Topic


VERIFY_GROUP: Final = Group("groundswell-verify", SIGNATURES_SUBMITTED)
TALLY_GROUP: Final = Group("groundswell-tally", SIGNATURES_VERIFIED)
NOTIFY_GROUP: Final = Group("groundswell-notify", MILESTONES_REACHED)

GROUPS: Final = (VERIFY_GROUP, TALLY_GROUP, NOTIFY_GROUP)

CONSUMED: Final = tuple(group.topic for group in GROUPS)
"""Topics with a consumer group of ours: these have a DLQ. Readers of compacted topics report a bad record and keep the
last good state; the record stays where it is."""


def max_record_bytes(topic: str) -> int:
    """The largest record that the topic of that name takes."""
    return DLQ_MAX_RECORD_BYTES if topic.endswith(_DLQ_SUFFIX) else MAX_RECORD_BYTES


_INTERNAL: Final = frozenset(topic.name for topic in TOPICS if topic.internal)


def compression_of(topic: str, *, internal: Compression) -> Compression:
    """How batches of the topic of that name are compressed; `internal`: how those of internal topics are."""
    return internal if topic in _INTERNAL else _FOR_EVERYBODY


def all_topics() -> tuple[Topic, ...]:
    """Every topic that must exist, dead-letter topics included."""
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
