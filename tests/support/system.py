"""The whole system under test, and its observable state."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer

from deploy.local.stack import Stack
from services.tally.counting.audit import PetitionAudit, audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from shared import redis as shared_redis
from shared.postgres import Database
from tests.support.waiting import eventually


@dataclass
class System:
    """A running stack and clients of it."""

    stack: Stack
    http: httpx.AsyncClient
    database: asyncpg.Pool
    sent: Counter[str] = field(default_factory=Counter)

    @property
    def admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.stack.environment['ADMIN_TOKEN']}"}

    @property
    def partner(self) -> dict[str, str]:
        return {"x-api-key": self.stack.environment["API_KEYS"].split(",")[0]}

    @property
    def ingest(self) -> str:
        return self.stack.services["ingest"][0].url

    @property
    def tally(self) -> str:
        return self.stack.services["tally"][0].url

    async def start_petition(self, petition_id: str, **changes: Any) -> None:
        """Make a petition and wait until every service knows it."""
        body = {
            "organisation": {"slug": "harbour-friends", "name": "Friends of the Harbour"},
            "title": f"Petition {petition_id}",
            "text": "Keep the ferry.",
            "targets": [
                {"target_id": "council", "name": "The Harbour Council", "kind": "body", "email": "c@council.test"}
            ],
            "milestones": [],
            **changes,
        }
        answer = await self.http.put(f"{self.ingest}/v1/petitions/{petition_id}", json=body, headers=self.admin)
        assert answer.status_code in (200, 201), answer.text

        async def known() -> bool:
            return (await self.http.get(f"{self.tally}/v1/petitions/{petition_id}/tally")).status_code == 200

        await eventually(known, f"tally knows {petition_id}")

    async def surge(self, petition_id: str, signers: range, *, name: str = "Ann Example") -> list[str]:
        """Send one signature for each number in `signers`, in batches; returns the signature ids, all accepted."""
        ids: list[str] = []
        for start in range(signers.start, signers.stop, 500):
            lines = "\n".join(
                json.dumps(
                    {
                        "email": f"signer{number}@mail.example",
                        "name": name,
                        "country": "NL" if number % 3 else "BE",
                        "idempotency_key": f"{petition_id}-{number}-{name.replace(' ', '-')}",
                    }
                )
                for number in range(start, min(start + 500, signers.stop))
            )
            ids += await self._send_lines(petition_id, lines)
        return ids

    async def _send_lines(self, petition_id: str, lines: str) -> list[str]:
        pending = lines.split("\n")
        ids: list[str] = []
        while pending:
            answer = await self.http.post(
                f"{self.ingest}/v1/petitions/{petition_id}/signatures/batch",
                content="\n".join(pending),
                headers={**self.partner, "content-type": "application/x-ndjson"},
            )
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
                continue
            assert answer.status_code == 207, answer.text
            results = answer.json()["results"]
            again = [line for line, result in zip(pending, results, strict=True) if result["status"] == 503]
            assert all(result["status"] in (202, 503) for result in results), results[:3]
            ids += [result["signature_id"] for result in results if result["status"] == 202]
            pending = again
        return ids

    async def count(self, petition_id: str) -> int:
        """The count that the public API shows."""
        answer = await self.http.get(f"{self.tally}/v1/petitions/{petition_id}/tally")
        return int(answer.json()["count"]) if answer.status_code == 200 else -1

    async def counts_to(self, petition_id: str, expected: int, seconds: float = 90) -> None:
        """Wait until the count is `expected`."""

        async def reached() -> bool:
            return await self.count(petition_id) == expected

        await eventually(
            reached, f"{petition_id} counts {expected} (it counts {await self.count(petition_id)})", seconds
        )

    async def states(self, petition_id: str) -> dict[str, int]:
        """How many signatures are in which state, from PostgreSQL."""
        rows = await self.database.fetch(
            "SELECT state, count(*) AS n FROM signatures WHERE petition_id = $1 GROUP BY state", petition_id
        )
        return {row["state"]: row["n"] for row in rows}

    async def decided(self, petition_id: str, total: int, seconds: float = 90) -> None:
        """Wait until `total` submissions have an outcome."""

        async def all_decided() -> bool:
            return sum((await self.states(petition_id)).values()) >= total

        await eventually(all_decided, f"{total} submissions of {petition_id} are decided", seconds)

    async def audited(self, petition_id: str) -> PetitionAudit:
        """The audit of one petition."""
        redis = shared_redis.connect(self.stack.environment["REDIS_URL"])
        database = Database(self.stack.environment["POSTGRES_URL"], application="test")
        await database.open()
        try:
            (result,) = await audit(TallyStore(redis), Ledger(database), [petition_id])
        finally:
            await redis.aclose()
            await database.close()
        return result

    async def is_proved(self, petition_id: str, expected: int) -> None:
        """Check that the count is right in every place that holds it."""
        await self.counts_to(petition_id, expected)
        states = await self.states(petition_id)
        assert states.get("verified", 0) == expected

        async def counted() -> bool:
            # While Redis is being healed, the API answers from what was announced: Redis itself may be a second behind.
            return (await self.audited(petition_id)).counted == expected

        await eventually(counted, f"Redis counts {expected} for {petition_id}", 30)
        result = await self.audited(petition_id)
        assert result.counted == result.proved == expected
        assert result.right, result
        assert result.beyond == 0

    async def records(self, topic: str) -> list[Any]:
        """Every record of a topic, from its beginning to its end at the time of the call."""
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self.stack.environment["KAFKA_BOOTSTRAP_SERVERS"],
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            ends = await consumer.end_offsets(list(consumer.assignment()))
            records: list[Any] = []
            while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    records += batch
            return records
        finally:
            await consumer.stop()

    async def is_ready(self) -> None:
        """Wait until every service says that it is ready."""
        for process in self.stack.service_processes:
            await process.wait_ready()
