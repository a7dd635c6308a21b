"""The one page that ingest shows to people: what went wrong with the form they sent, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader
from starlette.responses import HTMLResponse, Response

from shared.http import Problem

_LABELS: Final = {
    "email": "E-mail address",
    "name": "Name",
    "country": "Country",
    "postcode": "Postcode",
    "comment": "Comment",
    "consent": "Consent",
}

_HEADERS: Final = {
    "cache-control": "no-store",
    # The page loads nothing and runs nothing; its few lines of style are in it.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_WORDS: Final[dict[str, tuple[str, str | None]]] = {
    "petition_unknown": ("We do not know this petition", None),
    "petition_not_open_yet": ("This petition is not open yet", None),
    "petition_closed": ("This petition is closed", None),
    "invalid_fields": ("Please look at the form again", "Something is missing or not right:"),
    "too_many_requests": ("That was a bit fast", "Many forms have come from your network in a short time."),
    "overloaded": ("Very many people are signing right now", "We cannot take your signature this second."),
    "starting": ("One moment, please", "We are just starting."),
    "clock_wrong": ("Your signature could not be taken", "Something on our side is not right at the moment."),
    "kafka_away": ("Your signature could not be stored", "Something on our side does not answer right now."),
}
"""Heading, and the problem's detail in words for a person where it is written for programs."""

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)


def prefers_html(accept: bytes | None) -> bool:
    """Whether an Accept header (RFC 9110 section 12.5.1) asks for HTML more than for JSON, as browsers' forms do."""
    if accept is None or b"text/html" not in accept:
        return False
    html = json = 0.0
    for part in accept.lower().split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if kind == b"text/html":
            html = max(html, quality)
        elif kind in (b"application/json", b"application/problem+json"):
            json = max(json, quality)
    return html > json


def problem_page(problem: Problem, *, back: str | None) -> Response:
    """A problem for a person, with its status kept.

    Args:
        back: The petition's page, if it has one.
    """
    heading, detail = _WORDS.get(problem.code, ("That did not work", None))
    text = _templates.get_template("problem.html").render(
        heading=heading,
        detail=detail or problem.detail,
        errors=[(_LABELS.get(error["field"], error["field"]), error["problem"]) for error in problem.errors],
        retry_after=problem.retry_after,
        back=back,
    )
    headers = {**problem.headers, **_HEADERS}
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    return HTMLResponse(text, problem.status, headers)
