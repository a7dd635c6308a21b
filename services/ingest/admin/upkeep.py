"""Periodic work: finishing rows of processes that died, and republishing petitions behind which a late record came."""

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
    """Runs in every instance, until it is cancelled. All of its work is idempotent."""

    def __init__(self, *, intake: Intake, feed: CatalogueFeed, events: AdminEvents) -> None:
        self._intake, self._feed, self._events = intake, feed, events

    async def run(self) -> None:
        """Do the periodic work, for ever; a transient error only delays it.

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
        """Republish a petition's newest state, so that it is the last record of its key and compaction keeps it."""
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
        """Mark rows whose records are on the topic as done. Others stay ``asked`` until the next change decides them."""
        unfinished = await self._events.unfinished_changes()
        if not unfinished:
            return
        await self._feed.catch_up()
        for event_id, petition_id, version in unfinished:
            known = self._intake.petition(petition_id)
            if known is not None and known.version == version:
                await self._events.confirm(event_id)
