"""What is done beside the calls: finish the rows of processes that died, and write again what a late record stands behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import structlog

from services.ingest.admin.events import AdminEvents
from services.ingest.signing.intake import Intake
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.runtime.failures import is_transient
from shared.web.problems import Problem

log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 5.0


class AdminUpkeep:
    """Runs until it is cancelled, in every instance: what it does twice is as good as once."""

    def __init__(self, *, intake: Intake, feed: CatalogueFeed, events: AdminEvents) -> None:
        self._intake, self._feed, self._events = intake, feed, events

    async def run(self) -> None:
        """Look after things, again and again; what is away now is looked at the next time.

        Raises:
            Exception: a bug.
        """
        while True:
            if self._feed.complete:
                await self._unless_away(self._write_again())
                await self._unless_away(self._confirm())
            await asyncio.sleep(_EVERY_SECONDS)

    @staticmethod
    async def _unless_away(work: Awaitable[None]) -> None:
        try:
            await work
        except Problem as away:
            log.debug("admin_upkeep_put_off", cause=away.code)
        except Exception as error:
            if not is_transient(error):
                raise
            log.debug("admin_upkeep_put_off", cause=type(error).__name__)

    async def _write_again(self) -> None:
        """Give the newest state of a petition the last place on the topic, where compaction keeps it."""
        for petition in self._feed.overtaken():
            await self._intake.publish(
                PETITIONS_CHANGED,
                petition,
                key=petition.petition_id,
                event_id=uuid4(),
                petition_id=petition.petition_id,
                moment=datetime.now(UTC),
            )
            log.warning("petition_written_again", petition_id=petition.petition_id, version=petition.version)

    async def _confirm(self) -> None:
        """Rows whose records are on the topic are done. The others stay `asked`: nobody knows yet, and the next change will."""
        unfinished = await self._events.unfinished_changes()
        if not unfinished:
            return
        await self._feed.catch_up()
        for event_id, petition_id, version in unfinished:
            known = self._intake.petition(petition_id)
            if known is not None and known.version == version:
                await self._events.confirm(event_id)
