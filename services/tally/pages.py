"""The public pages, rendered on the server: they work without JavaScript, and show live numbers with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from services.tally.assets import asset_url
from services.tally.read_metrics import ReadMetrics
from services.tally.reading import RETRY_AFTER_SECONDS, CountsAway, CurrentTallies
from services.tally.views import card_view, counted, grouped, moment_text, organisation_body, petition_view
from shared.catalogue import Catalogue
from shared.events import PetitionChanged, TallyUpdated

CACHE_CONTROL: Final = "public, max-age=1"
"""The same page for everyone, and as fresh as the API's answers (`services.tally.routes`)."""

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'{ingest}; base-uri 'none'; frame-ancestors 'none'"
)

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters.update(grouped=grouped, moment=moment_text)
_templates.globals.update(asset=asset_url, counted=counted)


def page_routes(
    catalogue: Catalogue, tallies: CurrentTallies, metrics: ReadMetrics, ingest_url: str
) -> list[BaseRoute]:
    """The pages of organisations and petitions.

    Args:
        catalogue: The petitions.
        tallies: Their counts.
        metrics: Where answers are counted.
        ingest_url: Where browsers reach ingest, without a slash at the end: the sign form posts there.
    """
    pages = _Pages(catalogue, tallies, metrics, ingest_url.rstrip("/"))
    return [
        Route("/o/{slug}", pages.organisation),
        Route("/p/{petition_id}", pages.petition),
        Route("/p/{petition_id}/thanks", pages.thanks),
    ]


def not_found_page(message: str = "There is nothing at this address. Perhaps a letter is missing in it.") -> Response:
    """The page for an address that leads nowhere."""
    return _message(404, "Not found", message)


class _Pages:
    """The pages, with what they share."""

    def __init__(self, catalogue: Catalogue, tallies: CurrentTallies, metrics: ReadMetrics, ingest_url: str) -> None:
        self._catalogue, self._tallies, self._metrics, self._ingest_url = catalogue, tallies, metrics, ingest_url

    async def organisation(self, request: Request) -> Response:
        """``/o/{slug}``: an organisation, its supporters in all, its petitions."""
        petitions = self._catalogue.of_organisation(request.path_params["slug"])
        if not petitions:
            return self._unknown("organisation_page", "No organisation of this name has started a petition here.")
        tallies = await self._read(petitions, "organisation_page")
        if tallies is None:
            return _away()
        now = datetime.now(UTC)
        body = organisation_body(petitions, tallies, now)
        cards = {petition.petition_id: card_view(petition, now) for petition in petitions}
        return self._page("organisation_page", "organisation.html", organisation=body, cards=cards)

    async def petition(self, request: Request) -> Response:
        """``/p/{petition_id}``: a petition and the form to sign it."""
        return await self._about_petition(request, "petition_page", "petition.html")

    async def thanks(self, request: Request) -> Response:
        """``/p/{petition_id}/thanks``: where ingest sends a browser after the form."""
        return await self._about_petition(request, "thanks_page", "thanks.html")

    async def _about_petition(self, request: Request, what: str, template: str) -> Response:
        petition = self._catalogue.published(request.path_params["petition_id"])
        if petition is None:
            return self._unknown(what, "There is no petition at this address. Perhaps a letter is missing in it.")
        tallies = await self._read([petition], what)
        if tallies is None:
            return _away()
        view = petition_view(petition, tallies[petition.petition_id], datetime.now(UTC))
        return self._page(what, template, petition=view, ingest_url=self._ingest_url)

    async def _read(self, petitions: Sequence[PetitionChanged], what: str) -> dict[str, TallyUpdated] | None:
        try:
            return await self._tallies.of([petition.petition_id for petition in petitions])
        except CountsAway:
            self._metrics.answers.labels(what=what, outcome="away").inc()
            return None

    def _page(self, what: str, template: str, **context: Any) -> Response:
        self._metrics.answers.labels(what=what, outcome="ok").inc()
        return _html(200, template, ingest_url=context.pop("ingest_url", None), **context)

    def _unknown(self, what: str, message: str) -> Response:
        self._metrics.answers.labels(what=what, outcome="unknown").inc()
        return not_found_page(message)


def _away() -> Response:
    response = _message(
        503,
        "Back in a moment",
        "The counts cannot be read just now. No signature is lost: they are kept, and counted as soon as this is over."
        " Please try again in a few seconds.",
    )
    response.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    response.headers["cache-control"] = "no-store"
    return response


def _message(status: int, title: str, message: str) -> Response:
    return _html(status, "message.html", title=title, message=message)


def _html(status: int, template: str, *, ingest_url: str | None = None, **context: Any) -> Response:
    text = _templates.get_template(template).render(ingest_url=ingest_url, **context)
    headers = {
        "cache-control": CACHE_CONTROL,
        "content-security-policy": _CONTENT_SECURITY_POLICY.format(ingest=_origin_part(ingest_url)),
        "x-content-type-options": "nosniff",
        # The whole address within the site, the origin to ingest (which may check it), nothing over plain HTTP.
        "referrer-policy": "strict-origin-when-cross-origin",
    }
    return HTMLResponse(text, status, headers)


def _origin_part(url: str | None) -> str:
    """The origin of `url` for a policy, after a space; empty when there is none (a path on the same host)."""
    parts = urlsplit(url or "")
    return f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
