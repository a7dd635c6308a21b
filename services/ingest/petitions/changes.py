"""Changing a petition: no change overwrites a state that its author has not seen, across all instances.

Kafka has no compare-and-set, so PostgreSQL decides between concurrent changes of a petition (docs/adr/0014):

1. Read the newest row about the petition, then the topic up to now: this is the state to be changed.
2. Write the row of the new change, which follows that row. Only one row can follow it; a later change starts again.
3. Publish the record, with the row's version. Readers ignore a version below one that they have seen, so a process that was
   stopped here for an hour changes nothing when it wakes up.
4. Mark the row ``done``, unless another change has overtaken it meanwhile; then the answer is 409.

If a process dies between 2 and 4, the next change looks for its record on the topic: the row is confirmed if the record is
there, and otherwise overtaken. A change becomes the state of the petition only by its record on the topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from services.ingest.admin.events import AdminEvent, AdminEvents, LastChange
from services.ingest.metrics import IngestMetrics
from services.ingest.petitions.documents import changed_fields, etag_of
from services.ingest.problems import problem
from services.ingest.signing.intake import Intake
from shared.contract.events import PetitionChanged, PetitionState
from shared.contract.mailboxes.providers import LATEST
from shared.contract.topics import PETITIONS_CHANGED
from shared.kafka.broadcasting.catalogue_feed import CatalogueBehind
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient
from shared.web.problems import Problem

_PATIENCE_SECONDS: Final = 2.0
"""How long to wait for another, unfinished change; one takes about ten milliseconds."""
_TRYING_SECONDS: Final = 8.0
_POLL_SECONDS: Final = 0.05
_SEEN_SECONDS: Final = 2.0
_SEEN_POLL_SECONDS: Final = 0.02

Decide = Callable[[PetitionChanged | None], PetitionState]
"""Returns a petition's new state for the present one. May be called several times. Raises `Problem` to refuse the change."""


@dataclass(frozen=True, slots=True)
class Made:
    """A change that was made."""

    before: PetitionChanged | None
    petition: PetitionChanged
    etag: str


class PetitionChanges:
    """Makes changes of petitions.

    Args:
        catch_up: Reads the petitions up to now (`CatalogueFeed.catch_up`).
    """

    def __init__(
        self, *, intake: Intake, catch_up: Callable[[], Awaitable[None]], events: AdminEvents, metrics: IngestMetrics
    ) -> None:
        self._intake, self._catch_up, self._events, self._metrics = intake, catch_up, events, metrics

    async def current(self, petition_id: str) -> PetitionChanged | None:
        """The petition as it is now; if the topic cannot be read, as last read."""
        try:
            await self._catch_up()
        except Exception as error:
            if not is_transient(error):
                raise
        return self._intake.petition(petition_id)

    async def make(self, event: AdminEvent, decide: Decide) -> Made:
        """Change the petition of `event` to the state that `decide` returns.

        Raises:
            Problem: those of `decide`; 409, another change came first; 413 or 503, as `Intake.publish`; 503, the change
                cannot be recorded, and is not made.
        """
        event, made = await self._asked(event, decide)
        await failpoint("ingest.change_asked")
        try:
            await self._intake.publish(
                PETITIONS_CHANGED,
                made.petition,
                key=event.petition_id,
                event_id=event.event_id,
                petition_id=event.petition_id,
                moment=made.petition.changed_at,
            )
        except Problem as refusal:
            if refusal.code == "body_too_large":
                await self._events.finish(event, "failed")
            else:  # the record may be on the topic, or still get there
                self._events.say(event, "asked")
            raise
        await failpoint("ingest.change_stored")
        try:
            outcome = await self._events.finish(event, "done")
        except Problem as away:
            self._events.say(event, "asked")
            raise problem("change_unconfirmed") from away
        if outcome == "overtaken":
            raise problem("change_overtaken")
        self._metrics.petition_accepted.inc()
        await self._wait_until_seen(made.petition)
        return made

    async def _asked(self, event: AdminEvent, decide: Decide) -> tuple[AdminEvent, Made]:
        """Write the row of the change, and return its event and the change."""
        now = asyncio.get_running_loop().time
        started = now()
        while now() < started + _TRYING_SECONDS:
            last, clock = await self._events.last_change(event.petition_id)
            before = await self._read_up_to_now(event.petition_id)
            if last is not None and last.outcome == "asked":
                if before is not None and before.version == last.version:
                    await self._events.confirm(last.event_id)
                    continue
                if now() < started + _PATIENCE_SECONDS:
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
            state = decide(before)
            petition = PetitionChanged(
                **dict(state),
                petition_id=event.petition_id,
                changed_at=self._intake.moment(),
                version=_next_version(clock, last, before),
                mailbox_rules=LATEST if before is None else before.mailbox_rules,
            )
            made = Made(before, petition, etag_of(petition))
            event = replace(
                event,
                changed=changed_fields(before, state),
                etag_before=None if before is None else etag_of(before),
                etag_after=made.etag,
            )
            if await self._events.ask_change(event, version=petition.version, last=last):
                return event, made
        raise problem("change_overtaken")

    async def _read_up_to_now(self, petition_id: str) -> PetitionChanged | None:
        """The petition's newest state on the topic.

        Raises:
            Problem: 503, the topic cannot be read.
        """
        self._intake.require_complete()
        try:
            await self._catch_up()
        except CatalogueBehind as behind:
            raise problem(
                "kafka_away", detail="The petitions cannot be read up to now. Nothing was changed."
            ) from behind
        except Exception as error:
            if not is_transient(error):
                raise
            raise problem("kafka_away", detail="Kafka does not answer. Nothing was changed.") from error
        return self._intake.petition(petition_id)

    async def _wait_until_seen(self, changed: PetitionChanged) -> None:
        """Wait until this instance has read the change back, so that its author can send signatures next.

        The change is durable already; if reading it back takes long, the answer does not wait for it.
        """
        deadline = asyncio.get_running_loop().time() + _SEEN_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            known = self._intake.petition(changed.petition_id)
            if known is not None and known.version >= changed.version:
                return
            await asyncio.sleep(_SEEN_POLL_SECONDS)


def _next_version(clock: int, last: LastChange | None, before: PetitionChanged | None) -> int:
    """PostgreSQL's time in milliseconds, or more: always above every known version. One clock serves all instances."""
    known = (0 if last is None else last.version, 0 if before is None else before.version)
    return max(clock, *(version + 1 for version in known))
