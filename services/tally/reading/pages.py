"""The public pages, rendered on the server: they work without JavaScript, and show live numbers with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from services.tally.reading.assets import asset_url
from services.tally.reading.counts import Counts, CurrentTallies
from services.tally.reading.metrics import ReadMetrics
from services.tally.reading.refusals import FIELDS, Refusal, refusal_of
from services.tally.reading.typed import typed_of
from services.tally.reading.views import (
    PetitionView,
    as_of_text,
    card_view,
    counted,
    grouped,
    isolated,
    moment_text,
    newest_of,
    organisation_body,
    petition_view,
)
from shared.contract.bounds import MOST_CHARACTERS
from shared.contract.catalogue import Catalogue
from shared.contract.events import PetitionChanged
from shared.web.sign_form import FormUnreadable

CACHE_CONTROL: Final = "public, max-age=1"
"""The page is the same for all readers, and as fresh as the API's answers (`services.tally.reading.routes`)."""

_NO_STORE: Final = "no-store"
"""For a page that shows a form's input, or names a signature."""

_MOVED: Final = "public, max-age=3600"

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'{form_action}; base-uri 'none'; frame-ancestors 'none'"
)

_NOTHING_TYPED: Final[Mapping[str, str]] = dict.fromkeys(FIELDS, "")

_BEHIND_AN_ADDRESS: Final = " .,;:!?)]}>'\"’”»…"
"""Characters that often follow an address in a sentence, and are taken for a part of it."""

_ROBOTS: Final = "User-agent: *\nDisallow: /v1/\nDisallow: /p/*/thanks\n"

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters.update(grouped=grouped, moment=moment_text, isolated=isolated)
_templates.globals.update(asset=asset_url, counted=counted, most=MOST_CHARACTERS)


@dataclass(frozen=True, slots=True)
class PublicAddresses:
    """Public base URLs, without a slash at the end."""

    ingest: str
    """ingest, to which the sign form posts."""
    pages: str
    """These pages: ingest redirects a signed form there, whatever host name the form was opened under."""


def page_routes(
    catalogue: Catalogue, tallies: CurrentTallies, metrics: ReadMetrics, addresses: PublicAddresses
) -> list[BaseRoute]:
    """Routes of the pages of organisations and petitions, the icon and robots.txt.

    Args:
        catalogue: The petitions.
        tallies: Their counts.
        metrics: The metrics of the read side.
        addresses: Where browsers reach ingest and the pages.
    """
    pages = _Pages(catalogue, tallies, metrics, addresses)
    return [
        Route("/o/{slug}", pages.organisation),
        Route("/p/{petition_id}", pages.petition, methods=["GET", "POST"]),
        Route("/p/{petition_id}/thanks", pages.thanks),
        Route("/o/{slug}/", _without_slash),
        Route("/p/{petition_id}/", _without_slash),
        Route("/p/{petition_id}/thanks/", _without_slash),
        Route("/favicon.ico", _icon),
        Route("/robots.txt", _robots),
    ]


def not_found_page(message: str = "There is nothing at this address. Perhaps a letter is missing in it.") -> Response:
    """The page for an unknown address."""
    return _message(404, "Not found", message)


def not_allowed_page(headers: Mapping[str, str]) -> Response:
    """The page for a method that the address does not support; `headers` has ``Allow``."""
    page = _message(405, "That does not work here", "This address shows a page, and takes nothing that is sent to it.")
    page.headers.update(headers)
    return page


class _Pages:
    """The endpoints of the pages."""

    def __init__(
        self, catalogue: Catalogue, tallies: CurrentTallies, metrics: ReadMetrics, addresses: PublicAddresses
    ) -> None:
        self._catalogue, self._tallies, self._metrics, self._addresses = catalogue, tallies, metrics, addresses

    async def organisation(self, request: Request) -> Response:
        """``/o/{slug}``: an organisation, the sum of its supporters, and its petitions."""
        slug = request.path_params["slug"]
        petitions = self._catalogue.of_organisation(slug)
        if not petitions:
            if self._catalogue.of_organisation(meant := _meant(slug)):
                return _moved(f"/o/{meant}", request)
            return self._unknown("organisation_page", "No organisation of this name has started a petition here.")
        counts = await self._tallies.of([petition.petition_id for petition in petitions])
        now = datetime.now(UTC)
        body = organisation_body(petitions, counts.tallies, now, stale=counts.stale)
        newest = max((tally.updated_at for tally in counts.tallies.values()), default=None)
        self._answered("organisation_page", counts)
        return _html(
            200,
            "organisation.html",
            organisation=body,
            language=newest_of(petitions).language or "",
            cards={petition.petition_id: card_view(petition, now) for petition in petitions},
            as_of=as_of_text(newest, now) if counts.stale and newest is not None else None,
            canonical=f"{self._addresses.pages}/o/{slug}",
        )

    async def petition(self, request: Request) -> Response:
        """``/p/{petition_id}``: a petition and the form to sign it. POST shows a refused form again."""
        if request.method == "POST":
            return await self._refused(request)
        found = await self._view(request, "petition_page")
        return found if isinstance(found, Response) else self._petition_page(200, found)

    async def _refused(self, request: Request) -> Response:
        refusal = refusal_of(request.query_params)
        self._metrics.refused_forms.labels(reason=refusal.reason).inc()
        typed, readable = _NOTHING_TYPED, True
        try:
            typed = await typed_of(request)
        except FormUnreadable:
            readable = False
        except ClientDisconnect:
            return Response(status_code=400)  # the client is gone
        found = await self._view(request, "refused_page")
        if isinstance(found, Response):
            found.headers["cache-control"] = _NO_STORE
            return found
        if not found.require_consent:
            refusal = refusal.without("consent")
        return self._petition_page(refusal.words.status, found, refusal=refusal, typed=typed, readable=readable)

    def _petition_page(
        self,
        status: int,
        petition: PetitionView,
        *,
        refusal: Refusal | None = None,
        typed: Mapping[str, str] = _NOTHING_TYPED,
        readable: bool = True,
    ) -> Response:
        page = _html(
            status,
            "petition.html",
            forms_to=self._addresses,
            petition=petition,
            canonical=f"{self._addresses.pages}/p/{petition.petition_id}",
            refusal=refusal,
            typed=typed,
            readable=readable,
        )
        if refusal is not None:
            page.headers["cache-control"] = _NO_STORE
            if refusal.wait is not None:
                page.headers["retry-after"] = str(refusal.wait)
        return page

    async def thanks(self, request: Request) -> Response:
        """``/p/{petition_id}/thanks``: where ingest sends a browser after the form.

        ``signature`` in the query is the signature's id, with which the signer can query its status at ingest.
        """
        found = await self._view(request, "thanks_page")
        if isinstance(found, Response):
            return found
        signature = _uuid(request.query_params.get("signature", ""))
        status_url = None if signature is None else f"{self._addresses.ingest}/v1/signatures/{signature}"
        page = _html(200, "thanks.html", petition=found, status_url=status_url)
        if signature is not None:
            page.headers["cache-control"] = _NO_STORE
            page.headers["referrer-policy"] = "strict-origin"
        return page

    async def _view(self, request: Request, what: str) -> PetitionView | Response:
        """The view of the petition in the path; or the 404 page, if there is none."""
        petition_id = request.path_params["petition_id"]
        petition = self._catalogue.published(petition_id)
        if petition is None:
            meant = _meant(petition_id)
            if self._catalogue.published(meant) is not None:
                return _moved(f"/p/{meant}", request)
            return self._unknown(what, "There is no petition at this address. Perhaps a letter is missing in it.")
        return await self._view_of(petition, what)

    async def _view_of(self, petition: PetitionChanged, what: str) -> PetitionView:
        counts = await self._tallies.of([petition.petition_id])
        self._answered(what, counts)
        tally = counts.tallies.get(petition.petition_id)
        return petition_view(petition, tally, datetime.now(UTC), stale=bool(counts.stale))

    def _answered(self, what: str, counts: Counts) -> None:
        outcome = "ok" if not counts.stale else "stale" if counts.tallies else "away"
        self._metrics.answers.labels(what=what, outcome=outcome).inc()

    def _unknown(self, what: str, message: str) -> Response:
        self._metrics.answers.labels(what=what, outcome="unknown").inc()
        return not_found_page(message)


# ------------------------------------------------------------------------------------------------------ small answers


async def _without_slash(request: Request) -> Response:
    path: str = request.scope["path"]
    return _moved(path.rstrip("/"), request)


def _moved(path: str, request: Request) -> Response:
    """Redirect to another path of the same host. The path begins with a page's prefix, so it cannot name another host."""
    query = request.scope["query_string"].decode("latin-1")
    location = quote(path) + (f"?{query}" if query else "")
    return Response(status_code=308, headers={"location": location, "cache-control": _MOVED})


async def _icon(_: Request) -> Response:
    return Response(status_code=302, headers={"location": asset_url("icon.svg"), "cache-control": _MOVED})


async def _robots(_: Request) -> Response:
    return PlainTextResponse(_ROBOTS, headers={"cache-control": _MOVED})


def _meant(slug: str) -> str:
    """The intended slug of an address in capitals, or with punctuation copied from behind it."""
    return slug.rstrip(_BEHIND_AN_ADDRESS).lower()


def _uuid(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def _message(status: int, title: str, message: str) -> Response:
    return _html(status, "message.html", title=title, message=message)


def _html(status: int, template: str, *, forms_to: PublicAddresses | None = None, **context: Any) -> Response:
    """A page; with `forms_to`, its forms may be sent to ingest.

    Chromium applies ``form-action`` to redirects of a form, too. So the policy names the pages' public address, to which
    ingest redirects; the page may have been opened under another one.
    """
    allowed: Iterable[str] = ()
    if forms_to is not None:
        allowed = dict.fromkeys(filter(None, map(_origin, (forms_to.ingest, forms_to.pages))))
        context["ingest_url"] = forms_to.ingest
    text = _templates.get_template(template).render(**context)
    headers = {
        "cache-control": CACHE_CONTROL,
        "content-security-policy": _CONTENT_SECURITY_POLICY.format(form_action="".join(f" {one}" for one in allowed)),
        "x-content-type-options": "nosniff",
        # The whole address within the site, the origin to ingest (which may check it), nothing over plain HTTP.
        "referrer-policy": "strict-origin-when-cross-origin",
    }
    return HTMLResponse(text, status, headers)


def _origin(url: str) -> str:
    """The origin of `url` for a policy; empty if it has none (a path on the same host)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
