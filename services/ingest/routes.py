"""HTTP routing of ingest: the hot call goes directly to its endpoint, the others go through Starlette."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services.ingest.access.access import Access
from services.ingest.admin.events import AdminEvents
from services.ingest.metrics import IngestMetrics
from services.ingest.openapi import document as openapi
from services.ingest.petitions.calls import PetitionEndpoints
from services.ingest.petitions.changes import PetitionChanges
from services.ingest.problems import problem
from services.ingest.settings import Settings, split
from services.ingest.signatures.calls import SignatureEndpoints
from services.ingest.signatures.store import OutcomeStore
from services.ingest.signing.batch import BatchEndpoint
from services.ingest.signing.intake import Intake
from services.ingest.signing.sign import PREFIX, SUFFIX, SignEndpoint
from services.ingest.web.answers import Answers
from services.ingest.web.bodies import ClientDisconnected
from services.ingest.web.clients import Clients, parse_networks
from services.ingest.web.limits import ClientRate, InFlight
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.postgres import Database
from shared.web.malformed import fields_of
from shared.web.problems import Problem, prefers_html


def build(
    settings: Settings,
    database: Database,
    catalogue: Catalogue,
    feed: CatalogueFeed,
    intake: Intake,
    *,
    events: AdminEvents,
    in_flight: InFlight,
    metrics: IngestMetrics,
) -> ASGIApp:
    """The ASGI application with all calls of ingest.

    Args:
        settings: Credentials, limits, addresses.
        database: Holds the outcomes of signatures.
        catalogue: The petitions.
        feed: Fills the catalogue.
        intake: Publishes accepted commands.
        events: The audit log of administrators' calls.
        in_flight: Counts requests in progress.
        metrics: The metrics of ingest.
    """
    clients = Clients(parse_networks(settings.trusted_proxies), settings.proxy_header)
    access = Access(settings, clients)
    answers = Answers(pages_url=settings.public_pages_url, metrics=metrics)
    sign = SignEndpoint(
        intake=intake,
        access=access,
        clients=clients,
        rate=ClientRate(settings.client_rate),
        in_flight=in_flight,
        answers=answers,
        metrics=metrics,
    )
    others = other_routes(
        sign=sign,
        batch=BatchEndpoint(intake=intake, access=access, batches=InFlight(settings.max_batches), metrics=metrics),
        petitions=PetitionEndpoints(
            intake=intake,
            catalogue=catalogue,
            access=access,
            changes=PetitionChanges(intake=intake, catch_up=feed.catch_up, events=events, metrics=metrics),
            events=events,
        ),
        signatures=SignatureEndpoints(
            intake=intake,
            store=OutcomeStore(database),
            access=access,
            events=events,
            clients=clients,
            rate=ClientRate(settings.client_rate),
            answers=answers,
            metrics=metrics,
            pepper=settings.pepper,
        ),
        answers=answers,
        metrics=metrics,
    )
    dispatcher = Dispatcher(sign=sign, others=others, in_flight=in_flight, answers=answers)
    return _for_other_origins(dispatcher, split(settings.cors_origins))


def _for_other_origins(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """Allow pages of these origins to sign (CORS). Without origins, requests do not pass through the middleware."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["content-type", "idempotency-key"],
        expose_headers=["location", "retry-after"],
    )


class Dispatcher:
    """Bounds the requests in progress, and dispatches each to its endpoint."""

    def __init__(self, *, sign: SignEndpoint, others: ASGIApp, in_flight: InFlight, answers: Answers) -> None:
        self._sign, self._others, self._in_flight, self._answers = sign, others, in_flight, answers

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: str = scope["path"]
        if scope["method"] == "POST" and path.startswith(PREFIX) and path.endswith(SUFFIX):
            return self._sign(scope, receive, send)  # it counts its own requests, after their bodies have arrived
        return self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._in_flight.full:
            await self._in_flight.tarpit()
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
    """All calls but the hot one. That one is listed too, so that other methods on its address are answered with 405."""
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
            # A browser reloads the address to which a form was sent; the form is on the petition's page.
            location = answers.petition_url(path[len(PREFIX) : -len(SUFFIX)])
            return Response(status_code=303, headers={"location": location, "cache-control": "no-store"})
        name = "method_not_allowed" if error.status_code == 405 else "not_found"
        refusal = problem(name)
        refusal.headers.update(error.headers or {})  # Allow
        return answers.refuse(refusal)

    async def disconnected(_: Request, __: Exception) -> Response:
        metrics.disconnected.inc()
        return Response(status_code=400)  # the client is gone

    async def bug(_: Request, __: Exception) -> Response:
        return answers.refuse(problem("internal_error"))  # Starlette re-raises the error, so it is logged

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
