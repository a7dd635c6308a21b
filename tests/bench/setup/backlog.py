"""Fills topics with valid records: the backlog of a consumer that was away.

Groundswell's own event classes make the records, which look like those of ingest and verify. They are produced by another
client than Groundswell's (librdkafka), with batches as small as those of a busy ingest.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final
from uuid import UUID

import asyncpg
import confluent_kafka
from pydantic import TypeAdapter

from shared.contract.events import Event, MilestoneReached, SignatureVerified, SignCommand
from shared.contract.identity import canonical_email, milestone_id, new_signature_id, signer_key
from shared.contract.topics import DEFAULT_PARTITIONS, SIGNATURES_SUBMITTED, SIGNATURES_VERIFIED
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record

DUPLICATES: Final = 0.08
"""The part of submissions in a surge whose signer has signed before."""

_SKEW: Final = 1.1
"""Exponent of the power law by which signers spread over petitions, as in the load generator (load.lua)."""

_FLUSH_SECONDS: Final = 60.0
_COUNTRIES: Final = ("DE", "NL", "BE", "AT", "FR", "DK", "SE", "PL", "IT", "GB")
_DOMAINS: Final = ("lakepost.example", "gmail.com", "outlook.com", "mail.quillmere.example", "proton.me", "uni.example")
"""Some of these domains have spelling rules, as most people's have."""

_command_json: Final = TypeAdapter(SignCommand).dump_json
_fact_json: Final = TypeAdapter(SignatureVerified).dump_json


@dataclass(frozen=True, slots=True)
class Filled:
    """The content of a filled topic.

    Attributes:
        records: number of records.
        counts: by petition, how many must count at the end: of a signer's several signatures only the first.
    """

    records: int
    counts: Mapping[str, int]

    @property
    def signers(self) -> int:
        """How many must count, over all petitions."""
        return sum(self.counts.values())


async def submitted(
    bootstrap_servers: str,
    pepper: str,
    petition_ids: Sequence[str],
    records: int,
    *,
    duplicates: float = DUPLICATES,
    first_signer: int = 0,
) -> Filled:
    """Publish `records` signatures on ``signatures.submitted``; returns when all are acknowledged.

    Args:
        pepper: SIGNER_PEPPER of the services.
        petition_ids: what is signed, by a power law if they are several.
        duplicates: the part whose signer has signed before, in another signature.
        first_signer: the first signer's number. Two fillings of one topic must not share numbers, unless all of the
            second shall be duplicates.
    """
    counts: Counter[str] = Counter()
    made = _commands(pepper.encode(), petition_ids, records, duplicates, first_signer, counts)
    # A busy ingest has a linger of two milliseconds.
    await publish(bootstrap_servers, SIGNATURES_SUBMITTED.name, made, linger_ms=2)
    return Filled(records, dict(counts))


async def verified(
    bootstrap_servers: str,
    postgres_url: str,
    petition_ids: Sequence[str],
    records: int,
    *,
    lanes: int = DEFAULT_PARTITIONS,
) -> Filled:
    """Publish `records` facts on ``signatures.verified``, as a verify that owns all lanes would; each counts.

    Their ledger rows are written first: tally counts only facts that are in the ledger.
    """
    counts: Counter[str] = Counter()
    await into_ledger(postgres_url, _homes(petition_ids, records), lanes=lanes)
    made = _facts(petition_ids, records, lanes, counts)
    # verify publishes batch by batch; a petition's facts of one batch are together in one partition.
    await publish(bootstrap_servers, SIGNATURES_VERIFIED.name, made, linger_ms=20)
    return Filled(records, dict(counts))


_ROWS: Final = """
INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at)
SELECT number % $2, number / $2 + 1, id, petition_id, id, 'verified', 1, ($3::text[])[number % cardinality($3) + 1], now(), now()
FROM (SELECT petition_id, $4 + place - 1 AS number,
             ('00000000-0000-0000-0000-' || lpad(to_hex($4 + place), 12, '0'))::uuid AS id
      FROM unnest($1::text[]) WITH ORDINALITY AS fact (petition_id, place)) AS facts
"""
_ROWS_AT_A_TIME: Final = 100_000


async def into_ledger(postgres_url: str, homes: Sequence[str], *, lanes: int = DEFAULT_PARTITIONS) -> None:
    """Write ledger rows of facts: one for each of `homes`, its petition, over all lanes in turn."""
    connection = await asyncpg.connect(postgres_url)
    try:
        for start in range(0, len(homes), _ROWS_AT_A_TIME):
            part = list(homes[start : start + _ROWS_AT_A_TIME])
            await connection.execute(_ROWS, part, lanes, list(_COUNTRIES), start, timeout=120)
        await connection.execute("CHECKPOINT")  # now, and not while tally is measured
    finally:
        await connection.close()


async def publish(bootstrap_servers: str, topic: str, records: Iterable[Record], *, linger_ms: int = 2) -> None:
    """Produce `records`; returns when all are acknowledged by all replicas.

    Raises:
        RuntimeError: some were not.
    """
    await asyncio.to_thread(_publish, bootstrap_servers, topic, records, linger_ms)


def _publish(bootstrap_servers: str, topic: str, records: Iterable[Record], linger_ms: int) -> None:
    failed: list[str] = []

    def delivered(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
        if error is not None:
            failed.append(str(error))

    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "batch.size": 512 * 1024,
            "queue.buffering.max.messages": 200_000,
            # The partitioner that Java and our own services use; librdkafka's own default is another.
            "partitioner": "murmur2_random",
        }
    )
    for number, record in enumerate(records):
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)  # the queue is full; let it drain
        if number % 1_000 == 0:
            producer.poll(0)
    left = producer.flush(_FLUSH_SECONDS)
    if left or failed:
        raise RuntimeError(f"{left} records of {topic} were not acknowledged; refused: {failed[:3]}")


def event_record(event: Event, *, key: str, event_id: str | UUID, source: str, time: datetime | None = None) -> Record:
    """Any event as its topic holds it, keyed by petition."""
    headers = event_headers(type(event), event_id=event_id, source=source, subject=key, time=time)
    return Record(key.encode(), event.model_dump_json().encode(), headers)


def milestone(reached: MilestoneReached) -> Record:
    """A milestone as tally announces it."""
    event_id = milestone_id(reached.petition_id, reached.threshold)
    return event_record(reached, key=reached.petition_id, event_id=event_id, source="/groundswell/tally")


def power_law(choices: int) -> list[float]:
    """Cumulative weights of `choices` things of which the first is the most popular."""
    return list(itertools.accumulate(1 / rank**_SKEW for rank in range(1, choices + 1)))


def _commands(
    pepper: bytes,
    petition_ids: Sequence[str],
    records: int,
    duplicates: float,
    first_signer: int,
    counts: Counter[str],
) -> Iterator[Record]:
    random = Random(first_signer)  # the same at every run
    homes = random.choices(petition_ids, cum_weights=power_law(len(petition_ids)), k=records)
    signers = 0
    for _ in range(records):
        if signers and random.random() < duplicates:
            signer = int(random.random() * signers)
        else:
            signer = signers
            signers += 1
            counts[homes[signer]] += 1
        yield command(pepper, homes[signer], first_signer + signer)


def command(pepper: bytes, petition_id: str, signer: int) -> Record:
    """A signature of one signer, submitted now; another one at every call."""
    email = f"Maya.Lindqvist{signer}@{_DOMAINS[signer % len(_DOMAINS)]}"
    now = datetime.now(UTC)
    event = SignCommand(
        signature_id=new_signature_id(pepper),
        petition_id=petition_id,
        email=email,
        name="Maya Lindqvist",
        country=_COUNTRIES[signer % len(_COUNTRIES)],
        postcode="1011 AB",
        comment=None,
        consent=True,
        submitted_at=now,
    )
    key = signer_key(pepper, petition_id, canonical_email(email)).hex.encode()
    headers = event_headers(
        SignCommand, event_id=event.signature_id, source="/groundswell/ingest", subject=petition_id, time=now
    )
    return Record(key, _command_json(event), headers)


def _homes(petition_ids: Sequence[str], records: int) -> list[str]:
    """The petition of each fact; the same at every call."""
    return Random(records).choices(petition_ids, cum_weights=power_law(len(petition_ids)), k=records)


def _facts(petition_ids: Sequence[str], records: int, lanes: int, counts: Counter[str]) -> Iterator[Record]:
    for number, petition_id in enumerate(_homes(petition_ids, records)):
        counts[petition_id] += 1
        now = datetime.now(UTC)
        fact = SignatureVerified(
            signature_id=UUID(int=number + 1),
            petition_id=petition_id,
            lane=number % lanes,
            position=number // lanes + 1,
            country=_COUNTRIES[number % len(_COUNTRIES)],
            signed_at=now,
            occurred_at=now,
        )
        headers = event_headers(
            SignatureVerified,
            event_id=fact.signature_id,
            source="/groundswell/verify",
            subject=petition_id,
            time=now,
        )
        yield Record(petition_id.encode(), _fact_json(fact), headers)
