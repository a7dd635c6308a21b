"""HTTP of the read side: the JSON API, the event streams, and `build`, which adds the pages and the static files."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import anyio
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from services.tally.reading.assets import Assets
from services.tally.reading.counts import READ_SECONDS, RETRY_AFTER_SECONDS, Counts, CurrentTallies, TallyReader
from services.tally.reading.live import (
    Form,
    HubClosed,
    HubFull,
    LiveHub,
    Subscription,
    petition_frame,
    read_version,
    version_text,
)
from services.tally.reading.metrics import ReadMetrics
from services.tally.reading.openapi import document
from services.tally.reading.pages import PublicAddresses, not_allowed_page, not_found_page, page_routes
from services.tally.reading.views import organisation_body, tally_body
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.web.entity_tags import matches
from shared.web.problem_answers import EXCEPTION_HANDLERS, http_exception_response
from shared.web.problems import Problem, prefers_html

CACHE_CONTROL: Final = "public, max-age=1"
"""Counts are public, and a second old is fresh enough for readers: with any cache in front, a viral petition costs one
request per second and address. Streams are faster."""

HEARTBEAT_SECONDS: Final = 15.0
"""Proxies cut connections that are silent for 30 to 60 seconds; a heartbeat also detects clients that vanished."""

FAREWELL_SECONDS: Final = 1.0
"""The time for streams to end by themselves at a stop, before they are cut."""

RECONNECT_MILLISECONDS: Final = (1_000, 6_000)
"""The range of a browser's wait before it reconnects, random because all streams of a process end at the same moment."""


def build(
    catalogue: Catalogue,
    reader: TallyReader,
    hub: LiveHub,
    metrics: ReadMetrics,
    *,
    addresses: PublicAddresses,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    stall_seconds: float = 30.0,
    read_seconds: float = READ_SECONDS,
) -> Starlette:
    """The whole read side as one application.

    Args:
        catalogue: The petitions.
        reader: Reads counts from Redis.
        hub: Gets every record of ``tallies.updated``; the caller closes it when the process stops.
        metrics: The metrics of the read side, the same as the hub's.
        addresses: Where browsers reach ingest and the pages.
        heartbeat_seconds: Seconds between the comments that keep idle streams open.
        stall_seconds: Seconds without a read after which a subscriber's stream is ended, to free its place.
        read_seconds: The longest wait of a reader for Redis.
    """
    tallies = CurrentTallies(reader, hub, metrics, read_seconds=read_seconds)
    routes = [
        *api_routes(catalogue, tallies, hub, metrics, heartbeat_seconds=heartbeat_seconds, stall_seconds=stall_seconds),
        *page_routes(catalogue, tallies, metrics, addresses),
        Mount("/static", Assets(), name="static"),
    ]
    app = Starlette(routes=routes, exception_handlers={**EXCEPTION_HANDLERS, HTTPException: _refusal})
    # Starlette's redirect to the address without its last slash would use the host that the request names.
    app.router.redirect_slashes = False
    return app


def api_routes(
    catalogue: Catalogue,
    tallies: CurrentTallies,
    hub: LiveHub,
    metrics: ReadMetrics,
    *,
    heartbeat_seconds: float,
    stall_seconds: float,
) -> list[BaseRoute]:
    """The JSON API and the event streams, as docs/openapi-tally.json describes them."""
    api = _Api(catalogue, tallies, hub, metrics, heartbeat=heartbeat_seconds, stall=stall_seconds)
    return [
        Route("/v1/petitions/{petition_id}/tally", api.tally),
        Route("/v1/petitions/{petition_id}/tally/stream", api.tally_stream),
        Route("/v1/organisations/{slug}", api.organisation),
        Route("/v1/organisations/{slug}/stream", api.organisation_stream),
        Route("/openapi.json", _openapi),
    ]


class _Api:
    """The endpoints of the JSON API and the streams."""

    def __init__(
        self,
        catalogue: Catalogue,
        tallies: CurrentTallies,
        hub: LiveHub,
        metrics: ReadMetrics,
        *,
        heartbeat: float,
        stall: float,
    ) -> None:
        self._catalogue, self._tallies, self._hub, self._metrics = catalogue, tallies, hub, metrics
        self._heartbeat, self._stall = heartbeat, stall

    async def tally(self, request: Request) -> Response:
        """``GET /v1/petitions/{petition_id}/tally``."""
        petition = self._petition(request, "tally")
        counts = await self._counts([petition], "tally")
        tally, stale = counts.tallies[petition.petition_id], bool(counts.stale)
        # Weak, because it stands for the content and not for the bytes: the count's version and the petition's change.
        change = int(petition.changed_at.timestamp() * 1_000_000)
        etag = f'W/"{version_text(tally.version)}-{change:x}{"-stale" if stale else ""}"'
        return self._cacheable(request, tally_body(petition, tally, stale=stale), etag, "tally", stale=stale)

    async def organisation(self, request: Request) -> Response:
        """``GET /v1/organisations/{slug}``."""
        petitions = self._petitions(request, "organisation")
        counts = await self._counts(petitions, "organisation")
        body = organisation_body(petitions, counts.tallies, datetime.now(UTC), stale=counts.stale)
        # The answer changes with any count, any petition and the clock (open or not), so the ETag is a hash of it.
        digest = hashlib.blake2b(body.model_dump_json().encode(), digest_size=8).hexdigest()
        return self._cacheable(request, body, f'W/"{digest}"', "organisation", stale=body.stale)

    async def tally_stream(self, request: Request) -> Response:
        """``GET /v1/petitions/{petition_id}/tally/stream``: a snapshot, then updates."""
        petition = self._petition(request, "tally_stream")
        form = self._form(request)
        subscription = self._subscribe(form, petition.petition_id, "tally_stream")
        try:
            counts = await self._counts([petition], "tally_stream")
        except BaseException:
            subscription.end()
            raise
        tally = counts.tallies[petition.petition_id]
        known = _last_event_id(request)
        first = b"" if known >= tally.version else petition_frame(form, tally)
        subscription.begin(_retry() + first, {petition.petition_id: max(known, tally.version)})
        return self._stream(subscription, "tally_stream", counts)

    async def organisation_stream(self, request: Request) -> Response:
        """``GET /v1/organisations/{slug}/stream``: all its counts, then each petition's updates with the new sum.

        One stream for all petitions, because browsers open only six connections to a host over HTTP/1.1. Its events have no
        id: the first one is complete and small, so a reader that reconnects needs no earlier state.
        """
        petitions = self._petitions(request, "organisation_stream")
        slug = request.path_params["slug"]
        subscription = self._subscribe(Form.ORGANISATION, slug, "organisation_stream")
        try:
            counts = await self._counts(petitions, "organisation_stream")
        except BaseException:
            subscription.end()
            raise
        known = counts.tallies.values()
        first = self._hub.organisation_snapshot(slug, known)
        subscription.begin(_retry() + first, {tally.petition_id: tally.version for tally in known})
        return self._stream(subscription, "organisation_stream", counts)

    def _petition(self, request: Request, what: str) -> PetitionChanged:
        petition = self._catalogue.published(request.path_params["petition_id"])
        if petition is None:
            self._answered(what, "unknown")
            raise Problem(404, "petition_unknown", "There is no petition of this id.")
        return petition

    def _petitions(self, request: Request, what: str) -> list[PetitionChanged]:
        petitions = self._catalogue.of_organisation(request.path_params["slug"])
        if not petitions:
            self._answered(what, "unknown")
            raise Problem(404, "organisation_unknown", "No organisation of this name has started a petition.")
        return petitions

    def _form(self, request: Request) -> Form:
        given = request.query_params.getlist("detail")
        detail = given[0] if given else "full"
        if detail not in {"full", "count"} or len(given) > 1:
            self._answered("tally_stream", "invalid")
            problem = "must be full or count" if len(given) <= 1 else "must be given once"
            error = {"field": "detail", "code": "detail_invalid", "problem": problem}
            raise Problem(422, "invalid_fields", f"detail {problem}.", errors=[error])
        return Form.COUNT if detail == "count" else Form.TALLY

    async def _counts(self, petitions: Sequence[PetitionChanged], what: str) -> Counts:
        """The known counts of these petitions.

        Raises:
            Problem: 503, no count is known.
        """
        counts = await self._tallies.of([petition.petition_id for petition in petitions])
        if not counts.tallies:
            raise self._away(what)
        return counts

    def _away(self, what: str) -> Problem:
        self._answered(what, "away")
        return Problem(
            503,
            "counts_away",
            "The counts cannot be read at the moment. No signature is lost; try again in a few seconds.",
            retry_after=RETRY_AFTER_SECONDS,
        )

    def _subscribe(self, form: Form, key: str, what: str) -> Subscription:
        try:
            return self._hub.subscribe(form, key)
        except HubFull:
            self._answered(what, "full")
            detail = "All streams of this server are taken. Ask for the count itself, or try again."
            raise Problem(503, "too_many_streams", detail, retry_after=30) from None
        except HubClosed:
            self._answered(what, "stopping")
            raise Problem(503, "stopping", "This server is stopping. Try again.", retry_after=1) from None

    def _cacheable(self, request: Request, body: BaseModel, etag: str, what: str, *, stale: bool) -> Response:
        headers = {"etag": etag, "cache-control": CACHE_CONTROL, "x-content-type-options": "nosniff"}
        if matches(request.headers.get("if-none-match", ""), etag, weakly=True):
            self._answered(what, "stale" if stale else "not_modified")
            return Response(status_code=304, headers=headers)
        self._answered(what, "stale" if stale else "ok")
        return Response(body.model_dump_json(), media_type="application/json", headers=headers)

    def _stream(self, subscription: Subscription, what: str, counts: Counts) -> Response:
        self._answered(what, "stale" if counts.stale else "ok")
        return _LiveResponse(subscription, self._hub, self._metrics, heartbeat=self._heartbeat, stall=self._stall)

    def _answered(self, what: str, outcome: str) -> None:
        self._metrics.answers.labels(what=what, outcome=outcome).inc()


class _LiveResponse(EventSourceResponse):
    """An event stream that releases its place when it ends, for whatever reason."""

    def __init__(
        self, subscription: Subscription, hub: LiveHub, metrics: ReadMetrics, *, heartbeat: float, stall: float
    ) -> None:
        stopping = anyio.Event()

        async def close_hub() -> None:
            # `chunks` ends a stream once the hub is closed. The hub is closed here, because the server waits for its
            # connections before the service's own stop begins.
            await stopping.wait()
            hub.close()

        super().__init__(
            subscription.chunks(),
            ping=heartbeat,
            ping_message_factory=_heartbeat,
            data_sender_callable=close_hub,
            send_timeout=stall,
            shutdown_event=stopping,  # set once the server is asked to stop
            shutdown_grace_period=FAREWELL_SECONDS,
        )
        self._subscription, self._metrics = subscription, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            self._metrics.stalled.inc()
        finally:
            self._subscription.end()


def _heartbeat() -> ServerSentEvent:
    return ServerSentEvent(comment="still here", sep="\n")


def _retry() -> bytes:
    return b"retry: %d\n\n" % random.randint(*RECONNECT_MILLISECONDS)  # noqa: S311  spreads load, keeps no secret


def _last_event_id(request: Request) -> tuple[int, int]:
    """The version that a reconnecting reader has; below all others if it has none that we could have sent."""
    return read_version(request.headers.get("last-event-id", "")) or (0, -1)


async def _openapi(_: Request) -> Response:
    return JSONResponse(document())


async def _refusal(request: Request, error: Exception) -> Response:
    """Unknown addresses and methods: a page for people, problem details for programs."""
    assert isinstance(error, HTTPException)
    for_people = prefers_html(request.headers.get("accept", "").encode("latin-1"))
    if for_people and not request.url.path.startswith("/v1/"):
        if error.status_code == 404:
            return not_found_page()
        if error.status_code == 405:
            return not_allowed_page(error.headers or {})
    return await http_exception_response(request, error)
