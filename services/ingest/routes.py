"""ingest's HTTP addresses, and the way to them: the hot call goes straight to its endpoint, the others through Starlette."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.ingest.metrics import IngestMetrics
from services.ingest.openapi import document as openapi
from services.ingest.petitions.calls import PetitionEndpoints
from services.ingest.problems import problem
from services.ingest.signatures.calls import SignatureEndpoints
from services.ingest.signing.batch import BatchEndpoint
from services.ingest.signing.sign import PREFIX, SUFFIX, SignEndpoint
from services.ingest.web.answers import Answers
from services.ingest.web.bodies import ClientDisconnected
from services.ingest.web.limits import InFlight
from shared.web.malformed import fields_of
from shared.web.problems import Problem, prefers_html


class Dispatcher:
    """Bounds what is in work, and sends each request where it belongs."""

    def __init__(self, *, sign: SignEndpoint, others: ASGIApp, in_flight: InFlight, answers: Answers) -> None:
        self._sign, self._others, self._in_flight, self._answers = sign, others, in_flight, answers

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: str = scope["path"]
        if scope["method"] == "POST" and path.startswith(PREFIX) and path.endswith(SUFFIX):
            return self._sign(
                scope, receive, send
            )  # it bounds itself, not counting those whose bodies are on their way
        return self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._in_flight.full:
            await self._in_flight.linger()
            await self._answers.refuse(problem("overloaded"))(scope, receive, send)
            return
        with self._in_flight:
            await self._others(scope, receive, send)


def other_routes(
    *,
    sign: SignEndpoint,
    batch: BatchEndpoint,
    petitions: PetitionEndpoints,
    signatures: SignatureEndpoints,
    answers: Answers,
    metrics: IngestMetrics,
) -> Starlette:
    """Every call but the hot one; that one is listed too, so that other methods on its address are told of it."""
    document = openapi.document()

    async def openapi_json(_: Request) -> Response:
        return JSONResponse(document)

    def for_people(request: Request) -> bool:
        accept = fields_of(request.scope).get(b"accept")
        return request.method in {"GET", "HEAD"} and prefers_html(accept)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        shown = for_people(request) and request.scope.get("endpoint") == signatures.status
        return answers.refuse_page(error) if shown else answers.refuse(error)

    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        if error.status_code == 405 and for_people(request) and path.startswith(PREFIX) and path.endswith(SUFFIX):
            # Somebody loads the address again to which the form went: the form is on the petition's page.
            location = answers.petition_url(path[len(PREFIX) : -len(SUFFIX)])
            return Response(status_code=303, headers={"location": location, "cache-control": "no-store"})
        name = "method_not_allowed" if error.status_code == 405 else "not_found"
        refusal = problem(name)
        refusal.headers.update(error.headers or {})  # Allow
        return answers.refuse(refusal)

    async def disconnected(_: Request, __: Exception) -> Response:
        metrics.disconnected.inc()
        return Response(status_code=400)  # nobody is there to read it

    async def bug(_: Request, __: Exception) -> Response:
        return answers.refuse(problem("internal_error"))  # Starlette raises it again, for the log

    handlers: dict[Any, Any] = {
        Problem: refused,
        HTTPException: not_routed,
        ClientDisconnected: disconnected,
        Exception: bug,
    }
    app = Starlette(
        routes=[
            Route("/v1/petitions", petitions.list, methods=["GET"]),
            Route("/v1/petitions/{petition_id}", petitions.handle, methods=["GET", "PUT", "PATCH"]),
            Route("/v1/petitions/{petition_id}/signatures", sign, methods=["POST"]),
            Route("/v1/petitions/{petition_id}/signatures/batch", batch.handle, methods=["POST"]),
            Route("/v1/signatures/{signature_id}", signatures.status, methods=["GET"]),
            Route("/v1/signatures/{signature_id}/{command}", signatures.command, methods=["POST"]),
            Route("/openapi.json", openapi_json, methods=["GET"]),
        ],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False
    return app
