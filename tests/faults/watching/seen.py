"""What a reader who knows only the events' contract sees of a run on the topics.

It keeps only what the checks need: of a record with personal data its place and id.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from confluent_kafka import Message

from shared.contract.events import SignCommand
from shared.contract.topics import (
    CONSUMED,
    MILESTONES_REACHED,
    SIGNATURES_REJECTED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
)
from tests.faults.judging.personal import PersonalData
from tests.faults.notes import BY_HAND, SACRIFICE, Place, digest_of

DLQS: Final = tuple(topic.dlq for topic in CONSUMED)
WATCHED: Final = (
    SIGNATURES_SUBMITTED.name,
    SIGNATURES_VERIFIED.name,
    SIGNATURES_REJECTED.name,
    TALLIES_UPDATED.name,
    MILESTONES_REACHED.name,
    *DLQS,
)

_MOST_EXAMPLES: Final = 20
_MOST_EARLIER: Final = 200_000


class SeenFact(NamedTuple):
    """A fact of ``signatures.verified``."""

    petition_id: str
    event_id: str
    signature_id: str
    lane: int
    position: int
    delta: int
    country: str


@dataclass(frozen=True, slots=True)
class SeenSnapshot:
    """A record of ``tallies.updated``."""

    offset: int
    count: int
    revision: int
    countries: int
    """The sum of the break-down by country."""
    minutes: int
    """The sum of the break-down by minute, the earlier ones included."""


@dataclass(frozen=True, slots=True)
class SeenMilestone:
    """A record of ``milestones.reached``."""

    event_id: str
    petition_id: str
    threshold: int
    count: int
    revision: int


class SeenRejection(NamedTuple):
    """A record of ``signatures.rejected``."""

    petition_id: str
    event_id: str
    outcome: str
    reason: str


class DeadLetter(NamedTuple):
    """A record of a dead-letter topic."""

    topic: str
    source: Place
    reason: str
    digest: str
    omitted: bool
    petition: str | None = None
    """The sacrificial petition that it is about, if any."""


@dataclass(slots=True)
class Seen:
    """Everything seen of one run's petitions.

    Attributes:
        commands: places of the sign commands, by signature id, including those that ingest did not answer.
        facts: by (lane, position), each once.
        positions: of each event.
        first_partition: the partition in which a (lane, position) was first seen.
        earlier: redelivered facts of earlier runs: (lane, position) to event id.
        rejections: by signature id.
        decided: signature ids with a fact of +1 or a rejection.
        snapshots: by (petition, partition), in the topic's order.
        milestones: in the order of reading.
        repeats: number of records that repeated known ones, by topic.
        contradictions: records that contradict earlier ones, by kind.
        leaks: personal data or secrets in wrong places.
        troubles: errors that kept this reader from reading everything.
    """

    commands: dict[str, list[Place]] = field(default_factory=dict)
    facts: dict[tuple[int, int], SeenFact] = field(default_factory=dict)
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    earlier: dict[tuple[int, int], str] = field(default_factory=dict)
    rejections: dict[str, SeenRejection] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    snapshots: dict[tuple[str, int], list[SeenSnapshot]] = field(default_factory=dict)
    milestones: list[SeenMilestone] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    repeats: Counter[str] = field(default_factory=Counter)
    contradictions: dict[str, list[str]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    records: int = 0

    def contradict(self, what: str, example: str) -> None:
        """Record that a record contradicts another one."""
        examples = self.contradictions.setdefault(what, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(example)

    def last_snapshot(self, petition_id: str) -> SeenSnapshot | None:
        """The newest snapshot of a petition, by its place on the topic."""
        lists = [found for (petition, _), found in list(self.snapshots.items()) if petition == petition_id]
        return lists[0][-1] if lists else None


class Reading:
    """Turns records into what is seen."""

    def __init__(self, prefix: str, personal: PersonalData) -> None:
        self._prefix, self._personal = prefix, personal
        self._highest: dict[tuple[int, int], int] = {}  # (partition, lane) to the highest position seen there
        self.seen = Seen()

    def take(self, record: Message) -> None:
        """Note one record."""
        self.seen.records += 1
        try:
            headers = dict(_headers(record))
        except UnicodeDecodeError:
            # Only records written by hand have such a header; their dead letters show their outcome.
            if not _names_a_sacrifice(record.value()):
                self.seen.contradict(f"unreadable headers on {record.topic()}", _where(record))
            return
        topic = str(record.topic())
        self._look_for_leaks(topic, record)
        if topic in DLQS:
            self.seen.dead_letters.append(_dead_letter(topic, record))
        elif BY_HAND in headers:
            return
        elif topic == SIGNATURES_SUBMITTED.name:
            self._command(record, headers)
        else:
            try:
                self._event(topic, record, headers)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                if _names_a_sacrifice(record.value()):
                    return  # made of a row that was edited by hand
                self.seen.contradict(f"unreadable record on {topic}", f"{_where(record)}: {type(error).__name__}")

    def _look_for_leaks(self, topic: str, record: Message) -> None:
        headers = _headers(record)
        parts: list[bytes | None] = [record.key()]
        if topic in DLQS:
            parts += [value for name, value in headers if name.startswith("dlq_")]
        elif topic != SIGNATURES_SUBMITTED.name:  # the one topic that has personal data, though never in its key
            parts += [record.value(), *(value for _, value in headers)]
        for part in parts:
            if (found := self._personal.find(part or b"")) and len(self.seen.leaks) < _MOST_EXAMPLES:
                self.seen.leaks.append(f"{found} in {topic} {_where(record)}")

    def _command(self, record: Message, headers: Mapping[str, bytes | None]) -> None:
        if headers.get("ce_type") != SignCommand.TYPE.encode():
            return
        if not (headers.get("ce_subject") or b"").startswith(self._prefix.encode()):
            return
        signature_id = (headers.get("ce_id") or b"").decode("utf-8", "replace")
        places = self.seen.commands.setdefault(signature_id, [])
        place = _place(record)
        if place not in places:
            places.append(place)

    def _event(self, topic: str, record: Message, headers: Mapping[str, bytes | None]) -> None:
        body: dict[str, Any] = json.loads(record.value() or b"")
        event_id = (headers["ce_id"] or b"").decode()
        petition_id = body["petition_id"]
        if record.key() != petition_id.encode():
            self.seen.contradict(f"key on {topic} that is not the petition", _where(record))
        if topic == SIGNATURES_VERIFIED.name:
            self._fact(record, event_id, body)
        elif not petition_id.startswith(self._prefix):
            return  # redelivered, of an earlier run
        elif topic == SIGNATURES_REJECTED.name:
            self._rejection(event_id, body)
        elif topic == TALLIES_UPDATED.name:
            self._snapshot(record, body)
        else:
            self.seen.milestones.append(
                SeenMilestone(event_id, petition_id, body["threshold"], body["count"], body["revision"])
            )

    def _fact(self, record: Message, event_id: str, body: Mapping[str, Any]) -> None:
        fact = SeenFact(
            body["petition_id"],
            event_id,
            body["signature_id"],
            body["lane"],
            body["position"],
            body["delta"],
            body["country"],
        )
        place = (fact.lane, fact.position)
        if not fact.petition_id.startswith(self._prefix):
            if fact.petition_id.startswith(SACRIFICE):
                return  # the ledger was written to by hand
            if len(self.seen.earlier) < _MOST_EARLIER:
                self.seen.earlier[place] = event_id
            return
        known = self.seen.facts.setdefault(place, fact)
        if known is not fact:
            self.seen.repeats[SIGNATURES_VERIFIED.name] += 1
            if known != fact:
                self.seen.contradict("two facts at one (lane, position)", f"{place}: {known} and {fact}")
            return
        if self.seen.positions.setdefault(event_id, place) != place:
            self.seen.contradict(
                "an event at two positions", f"{event_id}: {self.seen.positions[event_id]} and {place}"
            )
        # A reader keeps one fence per lane, and drops a fact that first appears behind a higher position.
        way = (record.partition() or 0, fact.lane)
        if fact.position < self._highest.get(way, 0):
            self.seen.contradict("a position that appeared after a higher one", f"{place} at {_where(record)}")
        self._highest[way] = max(fact.position, self._highest.get(way, 0))
        if fact.delta > 0:
            self.seen.decided.add(fact.signature_id)

    def _rejection(self, event_id: str, body: Mapping[str, Any]) -> None:
        rejection = SeenRejection(body["petition_id"], event_id, body["outcome"], body["reason"])
        known = self.seen.rejections.setdefault(body["signature_id"], rejection)
        if known is not rejection:
            self.seen.repeats[SIGNATURES_REJECTED.name] += 1
            if known != rejection:
                self.seen.contradict("two different rejections of a signature", f"{known} and {rejection}")
        self.seen.decided.add(body["signature_id"])

    def _snapshot(self, record: Message, body: Mapping[str, Any]) -> None:
        snapshot = SeenSnapshot(
            record.offset() or 0,
            body["count"],
            body["revision"],
            sum(body["countries"].values()),
            body["earlier"] + sum(body["minutes"].values()),
        )
        self.seen.snapshots.setdefault((body["petition_id"], record.partition() or 0), []).append(snapshot)


def _headers(record: Message) -> list[tuple[str, bytes | None]]:
    # The library's type covers what a producer may pass; consumed headers are pairs.
    return cast("list[tuple[str, bytes | None]]", record.headers() or [])


_SACRIFICE: Final = re.compile(re.escape(SACRIFICE.encode()) + rb"[a-z0-9-]*")


def _names_a_sacrifice(content: bytes | None) -> str | None:
    """The first sacrificial petition named in a record."""
    found = _SACRIFICE.search(content or b"")
    return found and found[0].decode()


def _place(record: Message) -> Place:
    return (str(record.topic()), int(record.partition() or 0), int(record.offset() or 0))


def _where(record: Message) -> str:
    return f"partition {record.partition()} offset {record.offset()}"


def _dead_letter(topic: str, record: Message) -> DeadLetter:
    headers = _headers(record)
    own = [(name, value) for name, value in headers if not name.startswith("dlq_")]
    ours = {name: (value or b"").decode("utf-8", "replace") for name, value in headers if name.startswith("dlq_")}
    source = (
        ours.get("dlq_source_topic", "?"),
        int(ours.get("dlq_source_partition", "-1")),
        int(ours.get("dlq_source_offset", "-1")),
    )
    digest = digest_of(record.key(), record.value(), own)
    petition = _names_a_sacrifice(record.value()) or _names_a_sacrifice(record.key())
    return DeadLetter(topic, source, ours.get("dlq_reason", "?"), digest, "dlq_omitted" in ours, petition)
