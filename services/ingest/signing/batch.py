"""``POST /v1/petitions/{petition_id}/signatures/batch``: many signatures of one petition, from a partner with a key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from services.ingest.access.access import Access
from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem
from services.ingest.signing.admission import BatchLine
from services.ingest.signing.intake import Intake
from services.ingest.signing.sign import BODY_BYTES as LINE_BYTES
from services.ingest.web.bodies import BOM, content_type, read_body, refusal_of, require_utf8, too_large
from services.ingest.web.deadline import ANSWER_SECONDS
from services.ingest.web.limits import InFlight
from services.ingest.web.schemas import BatchAnswer, LineAccepted, LineRefused, status_url
from shared.contract.events import PetitionChanged
from shared.web.content_type import media_type
from shared.web.malformed import fields_of
from shared.web.problems import Problem, ProblemDetails

MAX_LINES: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
CONTENT_TYPES: Final = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")

_LINES_AT_A_TIME: Final = 50
"""Lines processed before the event loop gets a turn: about 2 ms, so that a batch does not delay single signers."""

Result = LineAccepted | LineRefused


class BatchEndpoint:
    """Accepts batches: each line gets its own result, and valid lines are accepted even if others are not."""

    def __init__(self, *, intake: Intake, access: Access, batches: InFlight, metrics: IngestMetrics) -> None:
        self._intake, self._access, self._batches, self._metrics = intake, access, batches, metrics

    async def handle(self, request: Request) -> Response:
        """Handle one request.

        Raises:
            Problem: the whole batch was refused; no line of it was accepted.
        """
        headers = fields_of(request.scope)
        caller = self._access.require(headers, request.scope)
        petition_id: str = request.path_params["petition_id"]
        if not self._intake.speaks_for(caller, petition_id):
            raise problem("petition_unknown")
        moment = self._intake.moment()
        petition = self._intake.require_open(petition_id, moment)
        if self._batches.full:
            raise problem("overloaded")
        with self._batches:
            lines = await self._read(headers, request)
            results = await self._take_in(lines, petition, moment)
        answer = BatchAnswer(results=results)
        return Response(answer.model_dump_json(), 207, media_type="application/json")

    async def _read(self, headers: Mapping[bytes, bytes], request: Request) -> list[tuple[int, bytes]]:
        """The non-empty lines with their numbers, from 1."""
        sent = content_type(headers)
        if media_type(sent) not in CONTENT_TYPES:
            raise problem("unsupported_content_type", detail="Send application/x-ndjson: one JSON object a line.")
        require_utf8(sent)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                body = await read_body(headers, request.receive, BATCH_BYTES)
        except TimeoutError:
            raise problem("body_too_slow") from None
        # In joined files, each part may begin with a byte order mark.
        found = enumerate((line.removeprefix(BOM) for line in body.split(b"\n")), 1)
        lines = [(number, line) for number, line in found if line.strip()]
        if not lines:
            raise problem("malformed_body", detail="The batch has no lines.")
        if len(lines) > MAX_LINES:
            raise problem("too_many_lines")
        self._metrics.batch_lines.observe(len(lines))
        return lines

    async def _take_in(
        self, lines: list[tuple[int, bytes]], petition: PetitionChanged, moment: datetime
    ) -> list[Result]:
        """Publish all lines at once, wait for all acknowledgements, and return a result per line."""
        work: list[asyncio.Task[Result]] = []
        for index, (number, line) in enumerate(lines):
            if index % _LINES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            work.append(asyncio.create_task(self._line(number, line, petition, moment)))
        _, late = await asyncio.wait(work, timeout=ANSWER_SECONDS)
        for task in late:
            task.cancel()
        return [
            self._refused(number, problem("kafka_away")) if task in late else task.result()
            for (number, _), task in zip(lines, work, strict=True)
        ]

    async def _line(self, number: int, line: bytes, petition: PetitionChanged, moment: datetime) -> Result:
        try:
            if len(line) > LINE_BYTES:
                raise too_large(LINE_BYTES)
            try:
                submission = BatchLine.model_validate_json(line)
            except ValidationError as error:
                raise refusal_of(error) from None
            admitted = self._intake.admit(submission, petition, submission.idempotency_key, moment)
            await self._intake.sign(admitted)
        except Problem as refusal:
            return self._refused(number, refusal)
        self._metrics.batch_accepted.inc()
        signature_id = admitted.command.signature_id
        return LineAccepted(line=number, signature_id=signature_id, status_url=status_url(signature_id))

    def _refused(self, number: int, refusal: Problem) -> LineRefused:
        self._metrics.count_refusal(refusal)
        return LineRefused(line=number, status=refusal.status, problem=ProblemDetails(**refusal.body()))
