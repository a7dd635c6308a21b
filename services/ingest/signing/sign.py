"""The one hot call: ``POST /v1/petitions/{petition_id}/signatures``.

A plain ASGI endpoint. In a surge nearly every request comes here, and a framework's request object, routing and response
classes would double the cost of a request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from starlette.types import Receive, Scope, Send

from services.ingest.access.access import Access
from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem
from services.ingest.signing.admission import Submission, valid_idempotency_key
from services.ingest.signing.intake import Intake
from services.ingest.web.answers import Answers
from services.ingest.web.bodies import ClientDisconnected, read_body, read_form
from services.ingest.web.clients import Clients
from services.ingest.web.deadline import ANSWER_SECONDS, Deadline
from services.ingest.web.limits import ClientRate, InFlight
from services.ingest.web.schemas import status_url
from shared.web.malformed import fields_of
from shared.web.problems import Problem, prefers_html
from shared.web.whole_answers import send_whole

PREFIX: Final = "/v1/petitions/"
SUFFIX: Final = "/signatures"
BODY_BYTES: Final = 32 * 1024
"""The largest form that the lengths of its fields allow: `MOST_BYTES_A_CHARACTER` for each of the 2,542 characters of
`MOST_CHARACTERS`, and 2 KiB for field names and separators."""

_JSON: Final = (b"content-type", b"application/json")


class SignEndpoint:
    """Accepts one signature, and answers after Kafka's acknowledgement."""

    def __init__(
        self,
        *,
        intake: Intake,
        access: Access,
        clients: Clients,
        rate: ClientRate,
        in_flight: InFlight,
        answers: Answers,
        metrics: IngestMetrics,
    ) -> None:
        self._intake, self._access, self._clients, self._rate = intake, access, clients, rate
        self._in_flight, self._answers, self._metrics = in_flight, answers, metrics
        self._deadline = Deadline(ANSWER_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = fields_of(scope)
        petition_id: str = scope["path"][len(PREFIX) : -len(SUFFIX)]
        try:
            signature_id = await self._accept(scope, headers, petition_id, receive)
        except Problem as refusal:
            answer = self._answers.refuse_form(refusal, headers, petition_id)
            if "connection" in refusal.headers:
                await answer(scope, receive, send)  # which also closes the connection
            else:
                await send_whole(send, answer.status_code, answer.raw_headers, bytes(answer.body))
            return
        except ClientDisconnected:
            self._metrics.disconnected.inc()
            return
        except Exception:
            await self._answers.refuse_form(problem("internal_error"), headers, petition_id)(scope, receive, send)
            raise  # the server logs it
        self._metrics.sign_accepted.inc()
        self._metrics.acknowledged_seconds.observe(time.perf_counter() - started)
        if prefers_html(headers.get(b"accept")):
            # 303: the browser fetches the thank-you page with GET, and reloading that does not sign again.
            location = self._answers.thanks_url(petition_id, signature_id).encode()
            await send_whole(send, 303, [(b"location", location), (b"content-length", b"0")], b"")
        else:
            url = status_url(signature_id)
            body = f'{{"signature_id":"{signature_id}","status":"submitted","status_url":"{url}"}}'.encode()
            length = str(len(body)).encode()
            headers_sent = [_JSON, (b"location", url.encode()), (b"content-length", length)]
            await send_whole(send, 202, headers_sent, body)

    async def _accept(self, scope: Scope, headers: Mapping[bytes, bytes], petition_id: str, receive: Receive) -> str:
        """The id of the signature, once it is durable.

        Raises:
            Problem: it was refused.
            ClientDisconnected: the client disconnected before the request was complete.
        """
        if self._in_flight.full:
            await self._in_flight.tarpit()
            raise problem("overloaded")
        self._admit_client(scope, headers, petition_id)
        moment = self._intake.moment()
        petition = self._intake.require_open(petition_id, moment)
        idempotency_key = valid_idempotency_key(headers.get(b"idempotency-key"))
        body: bytes | None = None
        try:
            with self._deadline:
                body = await read_body(headers, receive, BODY_BYTES)
                # In progress from here on: a client that sends its body slowly, or never, takes no place.
                with self._in_flight:
                    submission = read_form(headers, body, Submission)
                    admitted = self._intake.admit(submission, petition, idempotency_key, moment)
                    return await self._intake.sign(admitted)
        except TimeoutError:
            raise problem("body_too_slow" if body is None else "kafka_away") from None

    def _admit_client(self, scope: Scope, headers: Mapping[bytes, bytes], petition_id: str) -> None:
        caller = self._access.caller(headers, scope)
        if caller is not None and self._intake.speaks_for(caller, petition_id):
            return  # partners speak for many signers
        if wait := self._rate.wait(self._clients.of(scope)):
            raise problem("too_many_requests", retry_after=int(wait) + 1)
