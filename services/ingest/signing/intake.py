"""From a command to Kafka's acknowledgement: the common part of all calls that publish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from aiokafka.errors import MessageSizeTooLargeError
from pydantic import TypeAdapter

from services.ingest.access.access import Caller
from services.ingest.problems import problem
from services.ingest.signing.admission import Admitted, Submission, admit, require_open
from services.ingest.signing.clock import Clock
from services.ingest.web.deadline import ANSWER_SECONDS
from shared.contract.catalogue import Catalogue
from shared.contract.events import Event, PetitionChanged, SignCommand
from shared.contract.topics import SIGNATURES_SUBMITTED, Topic
from shared.kafka.producing.producer import EventProducer
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

SOURCE: Final = "/groundswell/ingest"

_to_json: Final = TypeAdapter(SignCommand).dump_json  # straight to bytes


class Intake:
    """Admits submissions and publishes commands.

    Args:
        catalogue_complete: Returns whether the catalogue holds everything that was on its topic at the process's start.
        on_bug: Ends the process; called when the producer fails with an error that is not transient.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        catalogue_complete: Callable[[], bool],
        producer: EventProducer,
        clock: Clock,
        pepper: bytes,
        on_bug: Callable[[BaseException], None],
    ) -> None:
        self._catalogue, self._complete = catalogue, catalogue_complete
        self._producer, self._clock, self._pepper, self._on_bug = producer, clock, pepper, on_bug

    def petition(self, petition_id: str) -> PetitionChanged | None:
        """The present state of a petition; None if there is none.

        Raises:
            Problem: 503, the catalogue is not complete, so "unknown" or "open" could be wrong.
        """
        self.require_complete()
        return self._catalogue.get(petition_id)

    def speaks_for(self, caller: Caller, petition_id: str) -> bool:
        """Whether a caller may act for this petition. One bound to organisations may not act for an unknown petition."""
        if caller.organisations is None:
            return True
        petition = self.petition(petition_id)
        return petition is not None and caller.may(petition.organisation.slug)

    def require_complete(self) -> None:
        """Require a complete catalogue.

        Raises:
            Problem: 503, the petitions are still being read.
        """
        if not self._complete():
            raise problem("starting")

    def moment(self) -> datetime:
        """Now, in UTC: the time of whatever is accepted.

        Raises:
            Problem: 503, the clock is wrong.
        """
        moment = self._clock.moment()
        if moment is None:
            raise problem("clock_wrong")
        return moment

    def require_open(self, petition_id: str, moment: datetime) -> PetitionChanged:
        """The petition, unless it takes no signatures at `moment`.

        Raises:
            Problem: 404, 409 or 410; 503, the catalogue is not complete, or a newer ingest made the petition.
        """
        return require_open(self.petition(petition_id), moment)

    def admit(
        self, submission: Submission, petition: PetitionChanged, idempotency_key: str | None, moment: datetime
    ) -> Admitted:
        """The command for a submission.

        Raises:
            Problem: 422, some fields are invalid.
        """
        return admit(submission, petition=petition, pepper=self._pepper, idempotency_key=idempotency_key, moment=moment)

    async def sign(self, admitted: Admitted) -> str:
        """Publish a sign command and wait for the acknowledgement. The caller sets the timeout.

        Returns:
            The signature's id.

        Raises:
            Problem: 503, not acknowledged, or stamped by a wrong clock.
        """
        command = admitted.command
        signature_id = str(command.signature_id)
        headers = event_headers(
            SignCommand,
            event_id=signature_id,
            source=SOURCE,
            subject=command.petition_id,
            time=command.submitted_at,
        )
        record = Record(admitted.key, _to_json(command), headers)
        await self._publish(SIGNATURES_SUBMITTED, record, command.submitted_at)
        return signature_id

    async def publish(
        self, topic: Topic, event: Event, *, key: str, event_id: UUID, petition_id: str, moment: datetime
    ) -> None:
        """Publish any other event and wait for the acknowledgement, at most `ANSWER_SECONDS`.

        Raises:
            Problem: 503, not acknowledged in time, or stamped by a wrong clock; 413, the record is too large for the brokers.
        """
        headers = event_headers(type(event), event_id=event_id, source=SOURCE, subject=petition_id, time=moment)
        record = Record(key.encode(), event.model_dump_json().encode(), headers)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._publish(topic, record, moment)
        except TimeoutError:
            raise problem("kafka_away") from None

    def _require_clock(self) -> None:
        if self._clock.wrong:
            raise problem("clock_wrong")

    async def _publish(self, topic: Topic, record: Record, moment: datetime) -> None:
        self._require_clock()
        await failpoint("ingest.before_publish")
        try:
            arrival = await self._producer.publish(topic.name, record)
        except MessageSizeTooLargeError:
            raise problem("body_too_large", detail="The brokers do not take a record of that size.") from None
        except Exception as error:
            if not is_transient(error):
                self._on_bug(error)
            raise problem("kafka_away") from error
        # The record is on the topic, but verify may refuse it for its time, so the client has to send it again.
        if self._clock.wrong or not self._clock.stamped(moment, arrival):
            raise problem("clock_wrong")
        await failpoint("ingest.acknowledged")
