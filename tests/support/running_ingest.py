"""An ingest on real parts, for tests that use its HTTP API and read the records that it published."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.service import ServiceProcess
from shared.contract.events import PetitionChanged
from shared.contract.topics import PETITIONS_CHANGED, SIGNATURES_SUBMITTED
from shared.kafka.records.headers import event_headers
from tests.support.waiting import eventually

PEPPER, ADMIN, KEY = "pepper-of-the-tests", "admin-token-of-the-tests", "partner-key-of-the-tests"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
AS_PARTNER = {"X-API-Key": KEY}

STATE: dict[str, Any] = {
    "organisation": {"slug": "open-rails", "name": "Open Rails"},
    "title": "Bring back the night trains",
    "text": "One train each night.",
    "targets": [{"target_id": "council", "name": "The Council", "kind": "body", "email": "post@council.example"}],
    "milestones": [1000],
}


def ingest_process(kafka: KafkaBroker, *, postgres_url: str, log_dir: Path, **changes: str) -> ServiceProcess:
    """An ingest that is not started yet."""
    environment = {
        **kafka.environment,
        "POSTGRES_URL": postgres_url,
        "SIGNER_PEPPER": PEPPER,
        "ADMIN_TOKEN": ADMIN,
        "API_KEYS": f"partner:{KEY}",
        "PUBLIC_PAGES_URL": "https://pages.example",
        "INGEST_CLIENT_RATE": "off",
        "INGEST_WRONG_CREDENTIALS_RATE": "off",
        **changes,
    }
    return ServiceProcess("ingest", environment=environment, log_dir=log_dir)


@dataclass
class Ingest:
    """A running ingest, and its observable effects."""

    process: ServiceProcess
    kafka: KafkaBroker
    http: httpx.AsyncClient
    postgres_url: str

    async def start_petition(self, petition_id: str, **changes: Any) -> None:
        """Create a petition that takes signatures; `changes` replace its fields."""
        answer = await self.http.put(f"/v1/petitions/{petition_id}", json={**STATE, **changes}, headers=AS_ADMIN)
        assert answer.status_code in (200, 201), answer.text

    async def publish_petition(self, petition_id: str, **changes: Any) -> None:
        """Put a petition's state on the topic, as another ingest would, and wait until this one has read it.

        Unlike a change by the API, this needs no PostgreSQL, which keeps the record of changes.
        """
        state = {**STATE, "petition_id": petition_id, "changed_at": datetime.now(UTC).isoformat(), **changes}
        headers = event_headers(PetitionChanged, event_id=uuid4(), source="/elsewhere", subject=petition_id)
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers) as producer:
            await producer.send_and_wait(
                PETITIONS_CHANGED.name, json.dumps(state).encode(), key=petition_id.encode(), headers=headers
            )

        async def is_read() -> bool:
            return (await self.http.get(f"/v1/petitions/{petition_id}")).status_code == 200

        await eventually(is_read, f"ingest has read {petition_id}")

    async def sign(self, petition_id: str, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Send one signature as JSON."""
        submission = {"email": "robin@mail.example", "name": "Robin", "country": "NL", **changes}
        return await self.http.post(f"/v1/petitions/{petition_id}/signatures", json=submission, headers=headers)

    async def published(self, petition_id: str) -> list[ConsumerRecord[Any, Any]]:
        """All records about the petition on the commands' topic at this moment."""
        consumer = AIOKafkaConsumer(
            SIGNATURES_SUBMITTED.name,
            bootstrap_servers=self.kafka.bootstrap_servers,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            partitions = list(consumer.assignment())
            assert partitions
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord[Any, Any]] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record for record in records if json.loads(record.value)["petition_id"] == petition_id]
            return found
        finally:
            await consumer.stop()

    async def decide(
        self,
        signature_id: str,
        *,
        state: str,
        petition_id: str,
        signer: UUID,
        reason: str | None = None,
        duplicate_of: UUID | None = None,
        counted_by: UUID | None = None,
    ) -> None:
        """Write an outcome, as verify would; with the ledger row of the command `counted_by`."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(
                "INSERT INTO signatures"
                " (signature_id, signer_key, petition_id, state, reason, country, submitted_at, duplicate_of)"
                " VALUES ($1, $2, $3, $4, $5, 'NL', $6, $7)",
                UUID(signature_id),
                signer,
                petition_id,
                state,
                reason,
                datetime.now(UTC),
                duplicate_of,
            )
            if counted_by is not None:
                await connection.execute(
                    "INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at,"
                    " occurred_at) SELECT 0, coalesce(max(position), 0) + 1, $1, $2, $3, 'verified', 1, 'NL', now(), now()"
                    " FROM ledger",
                    counted_by,
                    petition_id,
                    UUID(signature_id),
                )
        finally:
            await connection.close()

    async def decide_duplicate(self, signature_id: str, *, of: str, petition_id: str, signer: UUID) -> None:
        """Store a signature as a duplicate of one that stands, as verify would."""
        await self.decide(
            signature_id,
            state="duplicate",
            petition_id=petition_id,
            signer=signer,
            reason="already_signed",
            duplicate_of=UUID(of),
        )

    async def metric(self, sample: str) -> float:
        """The value of one sample of /metrics; 0 when it is not there yet."""
        for line in (await self.http.get("/metrics")).text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


@asynccontextmanager
async def running_ingest(
    kafka: KafkaBroker, *, postgres_url: str, log_dir: Path, **changes: str
) -> AsyncIterator[Ingest]:
    """Start an ingest; stop it at the end."""
    process = ingest_process(kafka, postgres_url=postgres_url, log_dir=log_dir, **changes)
    async with process, httpx.AsyncClient(base_url=process.url, timeout=30) as http:
        yield Ingest(process, kafka, http, postgres_url)


def code(answer: httpx.Response) -> str:
    """The code of a refusal, which must be a problem of RFC 9457."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return str(answer.json()["type"]).removeprefix("urn:groundswell:problem:")
