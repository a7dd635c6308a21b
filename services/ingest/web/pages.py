"""ingest's HTML pages: the status of a signature, in the style of the petitions' pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from services.ingest.web.schemas import SignatureStatus
from shared.contract.states import SignatureState
from shared.web.problems import Problem

_POLICY: Final = (
    "default-src 'none'; style-src {pages}; img-src {pages}; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'none'"
)

STATES: Final[Mapping[SignatureState, tuple[str, str]]] = {
    SignatureState.SUBMITTED: (
        "Your signature has arrived",
        "It is being checked, which usually takes a moment. Look again in a little while.",
    ),
    SignatureState.PENDING: (
        "Your signature waits for you",
        "It counts once you have confirmed your e-mail address, and not before.",
    ),
    SignatureState.VERIFIED: ("Your signature counts", "It was checked, and it is counted."),
    SignatureState.DUPLICATE: (
        "You have signed before",
        "Everyone is counted once: the first signature is the one that stands.",
    ),
    SignatureState.REJECTED: ("Your signature does not count", "It was checked, and could not be counted."),
    SignatureState.WITHDRAWN: ("This signature was withdrawn", "It is not counted."),
    SignatureState.INVALIDATED: ("This signature was struck out", "It is not counted."),
}
"""Heading and sentence for each state."""

REASONS: Final[Mapping[str, str]] = {
    "already_signed": "Everyone is counted once, and this signer had signed before.",
    "petition_unknown": "There was no such petition when your signature was checked.",
    "petition_not_open": "It came before the petition was open.",
    "petition_closed": "It came after the petition had closed.",
    "email_domain_blocked": "This petition does not accept e-mail addresses of your address’s domain.",
    "country_unknown": "There is no country with the code that was given.",
    "country_not_eligible": "This petition counts signatures from certain countries only, and yours is not one of them.",
    "consent_missing": "This petition can be signed only with consent, and it was not given.",
    "name_invalid": "The name holds no letter, or a web address.",
}
"""Why a signature was rejected, for the signer, by the code of docs/reason-codes.md."""

_PROBLEMS: Final[Mapping[str, tuple[str, str]]] = {
    "signature_unknown": ("We do not know this signature", "Perhaps a part of the address is missing."),
    "too_many_requests": ("That was a bit fast", "Many questions have come from your network in a short time."),
    "postgres_away": ("This cannot be looked up right now", "Your signature is not lost. Please look again later."),
    "starting": ("One moment, please", "We are just starting."),
}

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def status_page(status: SignatureStatus, *, pages_url: str, back: str | None) -> Response:
    """The status of a signature. The page says nothing about the signer.

    Args:
        status: The status, as far as the caller may see it.
        pages_url: The base URL of the petitions' pages.
        back: The petition's page; None if the petition is not known.
    """
    heading, text = STATES[status.status]
    reason = REASONS.get(status.reason or "")
    return _page(
        200, heading, text, pages_url, reason=reason, again=status.status == SignatureState.SUBMITTED, back=back
    )


def problem_page(problem: Problem, *, pages_url: str) -> Response:
    """Why a status cannot be looked up, with the problem's HTTP status."""
    heading, text = _PROBLEMS.get(problem.code, ("That did not work", problem.detail))
    page = _page(
        problem.status, heading, text, pages_url, again=problem.retry_after is not None, wait=problem.retry_after
    )
    page.headers.update(problem.headers)
    if problem.retry_after is not None:
        page.headers["retry-after"] = str(problem.retry_after)
    return page


def _page(status: int, heading: str, text: str, pages_url: str, **context: Any) -> Response:
    shown = {"reason": None, "again": False, "wait": None, "back": None, **context}
    html = _templates.get_template("status.html").render(heading=heading, text=text, pages_url=pages_url, **shown)
    pages = urlsplit(pages_url)
    headers = {
        "cache-control": "no-store",  # it changes, and is private to the signer
        "content-security-policy": _POLICY.format(pages=f"{pages.scheme}://{pages.netloc}"),
        "referrer-policy": "no-referrer",
        "vary": "accept",
        "x-content-type-options": "nosniff",
    }
    return HTMLResponse(html, status, headers)
