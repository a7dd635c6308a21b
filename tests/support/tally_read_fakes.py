"""An invented organisation, and counts from memory, for the tests of tally's read side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError
from starlette.applications import Starlette

from services.tally.reading import routes
from services.tally.reading.live import LiveHub
from services.tally.reading.metrics import ReadMetrics
from services.tally.reading.pages import PublicAddresses
from shared.contract.catalogue import Catalogue
from shared.contract.events import Organisation, PetitionChanged, Policy, TallyUpdated, Target

CHANGED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HARBOUR = "open-the-harbour-baths"
BUS = "later-night-buses"


def petition(petition_id: str = HARBOUR, **changes: Any) -> PetitionChanged:
    """A petition of River Valley Together; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "petition_id": petition_id,
        "changed_at": CHANGED,
        "organisation": Organisation(slug="river-valley", name="River Valley Together"),
        "title": "Open the harbour baths in winter",
        "text": "The baths close in October.\n\nWe ask that they stay open.\nAll winter.",
        "targets": [
            Target(target_id="council", name="The Harbour Council", kind="body", email="office@harbour.example"),
            Target(target_id="minister", name="the Minister for Rivers", email="minister@rivers.example"),
        ],
        "milestones": [1_000, 5_000],
        "policy": Policy(),
    }
    return PetitionChanged(**{**fields, **changes})


def tally(petition_id: str = HARBOUR, count: int = 0, revision: int | None = None) -> TallyUpdated:
    """A tally with `count` supporters, all of the Netherlands, in one minute."""
    return TallyUpdated(
        petition_id=petition_id,
        count=count,
        revision=count if revision is None else revision,
        countries={"NL": count} if count else {},
        minutes={"2026-03-02T10:42Z": count} if count else {},
        earlier=0,
        updated_at=CHANGED,
    )


class MemoryReader:
    """A `TallyReader` that can go away."""

    def __init__(self) -> None:
        self.stored: dict[str, TallyUpdated] = {}
        self.away: Exception | None = None
        self.dead_connections = 0
        self.calls: list[list[str]] = []

    def put(self, *tallies: TallyUpdated) -> None:
        self.stored.update({one.petition_id: one for one in tallies})

    def go_away(self) -> None:
        self.away = RedisConnectionError("no answer")

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        self.calls.append(list(petition_ids))
        await asyncio.sleep(0)
        if self.dead_connections:
            self.dead_connections -= 1
            raise RedisConnectionError("closed by the server")
        if self.away is not None:
            raise self.away
        return {one: self.stored.get(one) or tally(one) for one in petition_ids}


@dataclass
class ReadSide:
    """The read side with everything around it in memory."""

    max_subscribers: int = 100
    heartbeat_seconds: float = 15.0
    read_seconds: float = 3_600.0
    """On a busy machine even the reader in memory may need longer than the production limit."""
    ingest_url: str = "http://sign.example:8001"
    pages_url: str = "http://pages.example"
    catalogue: Catalogue = field(default_factory=Catalogue)
    reader: MemoryReader = field(default_factory=MemoryReader)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.metrics = ReadMetrics(self.registry)
        self.hub = LiveHub(self.catalogue, self.metrics, max_subscribers=self.max_subscribers)

    def app(self) -> Starlette:
        return routes.build(
            self.catalogue,
            self.reader,
            self.hub,
            self.metrics,
            addresses=PublicAddresses(ingest=self.ingest_url, pages=self.pages_url),
            heartbeat_seconds=self.heartbeat_seconds,
            read_seconds=self.read_seconds,
        )

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"groundswell_tally_read_{name}", labels) or 0.0


@dataclass
class Served:
    """A running uvicorn."""

    url: str
    server: uvicorn.Server
    ended: asyncio.Task[None]


@contextlib.asynccontextmanager
async def serving(config: uvicorn.Config) -> AsyncIterator[Served]:
    """A server of `config` in this process, stopped at the end."""
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", server, task)
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def served(read_side: ReadSide) -> AsyncIterator[Served]:
    """The read side on a free port of the loopback."""
    config = uvicorn.Config(read_side.app(), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
    async with serving(config) as server:
        try:
            yield server
        finally:
            read_side.hub.close()
