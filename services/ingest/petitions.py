"""``PUT`` and ``GET /v1/petitions/{petition_id}``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.ingest.access import Access
from services.ingest.admission import petition_errors
from services.ingest.bodies import read_json, refusal_of
from services.ingest.intake import Intake
from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem
from services.ingest.schemas import public_petition
from shared.events import PetitionChanged, PetitionState
from shared.mailboxes.providers import LATEST
from shared.malformed import fields_of
from shared.topics import PETITIONS_CHANGED

PETITION_BYTES: Final = 768 * 1024
"""A text of 50,000 characters takes up to 600 kB when every character is a JSON escape. And what fits here fits, as
UTF-8, into one Kafka record of 1 MiB."""

_PETITION_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_SEEN_SECONDS: Final = 2.0
_SEEN_POLL_SECONDS: Final = 0.02


class PetitionEndpoints:
    """Changes a petition, and shows it."""

    def __init__(self, *, intake: Intake, access: Access, metrics: IngestMetrics) -> None:
        self._intake, self._access, self._metrics = intake, access, metrics

    async def handle(self, request: Request) -> Response:
        """Both methods of the address, in one route: so a third one is told of both.

        Raises:
            Problem: see docs/openapi.json.
        """
        petition_id: str = request.path_params["petition_id"]
        if request.method == "PUT":
            return await self._put(request, petition_id)
        return self._get(petition_id)

    def _get(self, petition_id: str) -> Response:
        petition = self._intake.petition(petition_id)
        if petition is None:
            raise problem("petition_unknown")
        body = public_petition(petition, datetime.now(UTC)).model_dump_json()
        # Its admission changes with the clock, so nobody may keep it for long.
        return Response(body, 200, {"cache-control": "public, max-age=5"}, media_type="application/json")

    async def _put(self, request: Request, petition_id: str) -> Response:
        headers = fields_of(request.scope)
        self._access.require_admin(headers, request.scope)
        if not _PETITION_ID.match(petition_id):
            raise problem(
                "invalid_fields",
                errors=[
                    {
                        "field": "petition_id",
                        "problem": "must be 1 to 64 of a-z, 0-9 and -, and not begin with -",
                    }
                ],
            )
        known = self._intake.petition(petition_id)
        state = await self._read(request, headers)
        moment = self._intake.moment()
        rules = LATEST if known is None else known.mailbox_rules
        changed = PetitionChanged(**dict(state), petition_id=petition_id, changed_at=moment, mailbox_rules=rules)
        await self._intake.publish(
            PETITIONS_CHANGED,
            changed,
            key=petition_id,
            event_id=uuid4(),
            petition_id=petition_id,
            moment=moment,
        )
        self._metrics.petition_accepted.inc()
        await self._wait_until_seen(changed, known)
        return Response(changed.model_dump_json(), 201 if known is None else 200, media_type="application/json")

    @staticmethod
    async def _read(request: Request, headers: Mapping[bytes, bytes]) -> PetitionState:
        body = await read_json(headers, request.receive, PETITION_BYTES)
        try:
            # Events ignore fields they do not know; a person's typo should show instead.
            state = PetitionState.model_validate_json(body, extra="forbid")
        except ValidationError as error:
            raise refusal_of(error) from None
        if errors := petition_errors(state):
            raise problem("invalid_fields", errors=errors)
        return state

    async def _wait_until_seen(self, changed: PetitionChanged, before: PetitionChanged | None) -> None:
        """Wait until this instance has read the change back, so that whoever made it can go on with signatures.

        The change is durable already; if reading it back takes long, the answer does not wait for it. The state `before`
        the change is not it, whatever its time says: another instance's clock may have been ahead.
        """
        deadline = asyncio.get_running_loop().time() + _SEEN_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            known = self._intake.petition(changed.petition_id)
            if known is not None and known is not before and known.changed_at >= changed.changed_at:
                return
            await asyncio.sleep(_SEEN_POLL_SECONDS)
