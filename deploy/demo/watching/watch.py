"""Observes the running system from outside: PostgreSQL, tally's API, /metrics, topics, the mailbox, the audit."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families

from deploy.demo.plan.petitions import Petitions
from deploy.demo.watching.observed import Observed, Outcomes, PetitionDrift, ReceivedMail
from deploy.demo.watching.topic_reader import Topics, reading
from deploy.local.parts.kafka import security_of
from deploy.local.state import StackState
from shared.contract.topics import CONSUMED, MILESTONES_REACHED, SIGNATURES_SUBMITTED

_OUTCOMES: Final = """
SELECT petition_id, state, coalesce(reason, '') AS reason, count(*) AS number
FROM signatures GROUP BY petition_id, state, reason
"""

_AUDIT_SECONDS: Final = 60.0
_DLQS: Final = [topic.dlq for topic in CONSUMED]


class Watch:
    """Asks the system. Make one with `watching`."""

    def __init__(
        self, state: StackState, petitions: Petitions, *, pool: asyncpg.Pool, http: httpx.AsyncClient, topics: Topics
    ) -> None:
        self._state, self._petitions = state, petitions
        self._pool, self._http, self._topics = pool, http, topics

    async def outcomes(self) -> Outcomes:
        """The signatures by petition, state and reason."""
        rows = await self._pool.fetch(_OUTCOMES)
        return Counter({(row["petition_id"], row["state"], row["reason"]): row["number"] for row in rows})

    async def organisation(self) -> dict[str, Any]:
        """tally's answer about the organisation."""
        return await self._json(f"{self._state.tally_url}/v1/organisations/{self._petitions.organisation_slug}")

    async def tallies(self) -> dict[str, int]:
        """The count of every petition, each from its own address."""
        bodies = await asyncio.gather(
            *(
                self._json(f"{self._state.tally_url}/v1/petitions/{petition.petition_id}/tally")
                for petition in self._petitions.all
            )
        )
        return {body["petition_id"]: body["count"] for body in bodies}

    async def lag(self) -> dict[str, int]:
        """Records that verify and tally have still to work off, as their metrics say (they look every two seconds)."""
        urls = {"verify": self._state.verify_url, "tally": self._state.tally_url}
        texts = await asyncio.gather(*(self._http.get(f"{url}/metrics") for url in urls.values()))
        return {
            service: int(_sum_of(text.text, "groundswell_consumer_lag_records"))
            for service, text in zip(urls, texts, strict=True)
        }

    async def mails(self) -> list[ReceivedMail]:
        """What the mailbox has."""
        answer = await self._http.get(f"{self._state.mailbox_url}/messages")
        return [
            ReceivedMail(
                to=tuple(mail["rcpt_to"]),
                petition_id=mail["headers"].get("X-Groundswell-Petition", ""),
                milestones=tuple(int(part) for part in mail["headers"].get("X-Groundswell-Milestones", "").split(",")),
            )
            for mail in answer.raise_for_status().json()
        ]

    def milestones(self) -> Counter[tuple[str, int]]:
        """How often each milestone was announced."""
        events = (json.loads(record.value or b"") for record in self._topics.of(MILESTONES_REACHED.name))
        return Counter((event["petition_id"], event["threshold"]) for event in events)

    @property
    def dead_letters(self) -> int:
        """How many records of ``signatures.submitted`` are dead letters."""
        return len(self._topics.of(SIGNATURES_SUBMITTED.dlq))

    async def observe(self) -> Observed:
        """Everything, once."""
        organisation = await self.organisation()
        return Observed(
            outcomes=await self.outcomes(),
            tallies=await self.tallies(),
            supporters=organisation["supporters"],
            petitions_started=organisation["petitions_started"],
            dead_letters=self._topics.of(SIGNATURES_SUBMITTED.dlq),
            other_dead_letters=sum(len(self._topics.of(dlq)) for dlq in _DLQS if dlq != SIGNATURES_SUBMITTED.dlq),
            milestones=self.milestones(),
            mails=await self.mails(),
            drifts=await self._audit(),
        )

    async def _audit(self) -> list[PetitionDrift]:
        """The same audit as `groundswell audit`."""
        from services.tally.counting.audit import audit
        from services.tally.counting.ledger import Ledger
        from services.tally.counting.redis_store import TallyStore
        from shared import redis as shared_redis
        from shared.postgres import Database

        database = Database(self._state.postgres_url, application="demo", size=1)
        redis = shared_redis.connect(self._state.redis_url)
        try:
            async with asyncio.timeout(_AUDIT_SECONDS):  # opening a database waits for it, however long it is away
                await database.open()
                results = await audit(
                    TallyStore(redis), Ledger(database), [petition.petition_id for petition in self._petitions.all]
                )
        finally:
            await redis.aclose()
            await database.close()
        return [
            PetitionDrift(result.petition_id, result.drift, result.beyond, result.differences)
            for result in results
            if not result.right or result.beyond
        ]

    async def _json(self, url: str) -> dict[str, Any]:
        answer = await self._http.get(url)
        body: dict[str, Any] = answer.raise_for_status().json()
        return body


@asynccontextmanager
async def watching(state: StackState, petitions: Petitions) -> AsyncIterator[Watch]:
    """Connect to everything that is watched. Topics are read from here on.

    Raises:
        asyncpg.PostgresError, httpx.HTTPError, aiokafka.errors.KafkaError, OSError: something does not answer.
    """
    async with (
        asyncpg.create_pool(state.postgres_url, min_size=1, max_size=1) as pool,
        httpx.AsyncClient(timeout=10, trust_env=False) as http,
        reading(
            state.kafka_bootstrap_servers,
            [MILESTONES_REACHED.name, *_DLQS],
            security=security_of(state.environment),
        ) as topics,
    ):
        yield Watch(state, petitions, pool=pool, http=http, topics=topics)


def _sum_of(exposition: str, name: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    )
