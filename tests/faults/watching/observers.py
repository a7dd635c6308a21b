"""Observes one run from outside, from beginning to end: topics, PostgreSQL, Redis, the public API and a stream.

It reaches everything directly, so faults of the services' connections do not affect it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self

import httpx

from tests.faults.judging.personal import PersonalData
from tests.faults.notes import RunNotes, begin_notes
from tests.faults.sending.surge import Surge
from tests.faults.watching.observed import Observed, Shown, Watched
from tests.faults.watching.seen import Seen
from tests.faults.watching.stores import Lane, Postgres, counted
from tests.faults.watching.topic_reader import TopicReader
from tests.faults.world import World

_ASK_SECONDS: Final = 0.25
_SILENT_SECONDS: Final = 20.0
"""A stream sends a heartbeat every 15 seconds; longer silence means that it is broken."""


class Observer:
    """`async with Observer(world, surge) as observer:` around a run, before its petitions are made.

    Attributes:
        personal: data that may be in no log, metric, key or header.
        notes: the notes of the run's faults about their own records; `notes_of(world)` returns the same.
        postgres: reads PostgreSQL.
    """

    def __init__(self, world: World, surge: Surge) -> None:
        self._world, self._surge = world, surge
        self.personal = PersonalData.of(world, surge)
        self.postgres = Postgres(world.postgres_url)
        self.notes = RunNotes()
        self._reader = TopicReader(world.bootstrap_servers, prefix=surge.prefix, personal=self.personal)
        self._lanes_before: dict[int, Lane] = {}
        self._watched = Watched()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def seen(self) -> Seen:
        """The topics as read so far."""
        return self._reader.seen

    async def __aenter__(self) -> Self:
        self._lanes_before = await self.postgres.lanes()
        await asyncio.to_thread(self._reader.start)
        self.notes = begin_notes(self._world, list(self._surge.petitions), self._reader.starts)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._ask())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.to_thread(self._reader.stop)
        for outcome in outcomes:
            if isinstance(outcome, Exception):  # CancelledError is not an Exception
                self.seen.troubles.append(f"a watcher ended: {outcome!r}")

    async def observed(self) -> Observed:
        """Stop observing, read everything once more, and return it. Call it when all is quiet.

        Raises:
            asyncpg.PostgresError, redis.exceptions.RedisError, httpx.HTTPError, OSError: something does not answer.
        """
        await self._stop()
        petitions = list(self._surge.petitions)
        return Observed(
            seen=self.seen,
            stored=await self.postgres.stored(petitions),
            lanes_before=self._lanes_before,
            strange_facts=await self.postgres.not_in_ledger(self.seen.earlier),
            counted=await counted(self._world.redis_url, self._world.postgres_url, petitions),
            shown={petition_id: await self.shown(petition_id) for petition_id in petitions},
            watched=self._watched,
            mails=[mail for mail in self._world.smtp.mails if mail.petition_id in self._surge.petitions],
            planted=self.notes.planted,
            planted_before=self.notes.earlier,
            direct=self.notes.accepted,
            spoiled=self.notes.spoiled,
            not_ready=await self._world.not_ready(),
            leaks=await self._metrics_leaks(),
        )

    async def shown(self, petition_id: str) -> Shown:
        """The public count of a petition, now.

        Raises:
            httpx.HTTPError: it cannot be read.
        """
        return Shown.of(await self._tally(petition_id))

    async def _tally(self, petition_id: str) -> dict[str, Any]:
        answer = await self._world.http.get(f"{self._world.tally_url}/v1/petitions/{petition_id}/tally")
        body: dict[str, Any] = answer.raise_for_status().json()
        return body

    async def _metrics_leaks(self) -> list[str]:
        leaks = []
        for process in list(self._world.service_processes):
            answer = await self._world.http.get(f"{process.url}/metrics")
            if found := self.personal.find(answer.raise_for_status().text):
                leaks.append(f"{found} in the metrics of {process.name}")
        return leaks

    # ------------------------------------------------------------------------------------------ the busiest petition

    async def _ask(self) -> None:
        """Poll the public count."""
        asked = self._watched.asked
        while True:
            try:
                body = await self._tally(self._surge.hot)
            except httpx.HTTPError:
                pass  # tally is away: nothing is shown
            else:
                # A stale count is the newest that this process knows; an earlier answer may have shown a newer one.
                if not body["stale"] and (not asked or asked[-1] != Shown.of(body)):
                    asked.append(Shown.of(body))
            await asyncio.sleep(_ASK_SECONDS)

    async def _follow(self) -> None:
        """Subscribe to the stream, and reconnect with the last event's id whenever it breaks, as a browser does."""
        last = ""
        while True:
            self._watched.connections += 1
            urls = [process.url for process in self._world.services["tally"]]
            url = urls[self._watched.connections % len(urls)]
            try:
                async for event_id, data in self._events(url, last):
                    last = event_id
                    self._watched.streamed.append(Shown.of(json.loads(data)))
            except httpx.HTTPError:
                pass  # the stream broke, or tally is away
            await asyncio.sleep(_ASK_SECONDS)

    async def _events(self, url: str, last: str) -> AsyncIterator[tuple[str, str]]:
        headers = {"last-event-id": last} if last else {}
        stream = f"{url}/v1/petitions/{self._surge.hot}/tally/stream"
        async with self._world.http.stream(
            "GET", stream, headers=headers, timeout=httpx.Timeout(5, read=_SILENT_SECONDS)
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                return
            event_id = data = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    data = value
                elif not line and event_id and data:
                    yield event_id, data
                    event_id = data = ""
