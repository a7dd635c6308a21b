"""The petitions of a benchmark, written to their topic before any service starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import confluent_kafka

from shared.contract.events import Organisation, PetitionChanged, Target
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.records.headers import event_headers

ORGANISATION: Final = "quillmere-neighbours"
HOT: Final = "quillmere-ferry"
"""The hot petition."""


def spread(count: int) -> list[str]:
    """Ids of `count` petitions over which signers spread by a power law: few petitions have most of the signatures."""
    return [f"petition-{number:04}" for number in range(1, count + 1)]


async def publish(
    bootstrap_servers: str,
    petition_ids: Sequence[str],
    *,
    milestones: Sequence[int] = (),
    organisation: str = ORGANISATION,
) -> None:
    """Publish petitions that are open for ever, all of one organisation. Returns when they are acknowledged."""
    await asyncio.to_thread(_publish, bootstrap_servers, petition_ids, list(milestones), organisation)


def _publish(bootstrap_servers: str, petition_ids: Sequence[str], milestones: list[int], organisation: str) -> None:
    failed: list[str] = []

    def delivered(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
        if error is not None:
            failed.append(str(error))

    # The partitioner that Java and our own services use; librdkafka's own default is another.
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
    for petition_id in petition_ids:
        event = petition(petition_id, milestones, organisation)
        headers = event_headers(PetitionChanged, event_id=uuid4(), source="/groundswell/ingest", subject=petition_id)
        producer.produce(
            PETITIONS_CHANGED.name,
            event.model_dump_json().encode(),
            petition_id.encode(),
            headers=list(headers),
            on_delivery=delivered,
        )
        producer.poll(0)
    left = producer.flush(30)
    if left or failed:
        raise RuntimeError(f"{left} petitions were not acknowledged; refused: {failed[:3]}")


def petition(petition_id: str, milestones: list[int], organisation: str = ORGANISATION) -> PetitionChanged:
    """One petition as its topic holds it."""
    return PetitionChanged(
        petition_id=petition_id,
        organisation=Organisation(slug=organisation, name="Quillmere Neighbours"),
        title=f"Keep the ferry ({petition_id})",
        text="The ferry is the shortest way across.",
        targets=[
            Target(target_id="mayor", name="The Mayor", kind="person", email="mayor@quillmere.example"),
        ],
        milestones=milestones,
        changed_at=datetime.now(UTC),
    )
