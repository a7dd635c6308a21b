"""HTTP that every service has in common: errors as RFC 9457 problem details, and who gets a page instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that says what went wrong and what to do (RFC 9457).

    Args:
        status: The HTTP status.
        code: A stable, short name of the problem; the last part of its ``type``.
        detail: A sentence for the person or program that made the request.
        errors: For 422: one entry per field, ``{"field": ..., "code": ..., "problem": ...}``.
        retry_after: For 429 and 503: seconds to wait.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.retry_after = errors, retry_after
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The problem details object."""
        body: dict[str, Any] = {
            "type": f"urn:groundswell:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [dict(error) for error in self.errors]
        return body

    def response(self) -> Response:
        """The answer to send."""
        headers = {"x-content-type-options": "nosniff", **self.headers}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return JSONResponse(self.body(), self.status, headers, media_type=PROBLEM_JSON)


def prefers_html(accept: bytes | None) -> bool:
    """Whether an Accept header (RFC 9110, section 12.5.1) asks for HTML more than for JSON, as browsers do.

    Of several ranges that match, the most specific one holds. Names are in any case. A range whose weight cannot be read
    counts as not wanted.

    Args:
        accept: The header's value; several of them joined by commas; None when there is none.
    """
    if accept is None or b"text/" not in (accept := accept.lower()):
        return False  # nearly every program
    html = json = 0.0
    html_rank = json_rank = -1
    for part in accept.split(b","):
        kind, *parameters = (piece.strip() for piece in part.split(b";"))
        quality = _quality(parameters)
        rank = _HTML_RANGES.get(kind, -1)
        if rank >= html_rank and rank >= 0:
            html, html_rank = max(html, quality) if rank == html_rank else quality, rank
        rank = _JSON_RANGES.get(kind, -1)
        if rank >= json_rank and rank >= 0:
            json, json_rank = max(json, quality) if rank == json_rank else quality, rank
    return html > json


_HTML_RANGES: Final = {b"*/*": 0, b"text/*": 1, b"text/html": 2}
_JSON_RANGES: Final = {b"*/*": 0, b"application/*": 1, b"application/json": 2, b"application/problem+json": 2}
_QUALITY: Final = re.compile(rb"q\s*=\s*([01](?:\.[0-9]{0,3})?)")


def _quality(parameters: Sequence[bytes]) -> float:
    for parameter in parameters:
        if parameter.startswith(b"q"):
            found = _QUALITY.fullmatch(parameter)
            return min(1.0, float(found[1])) if found else 0.0
    return 1.0


async def problem_response(_: Request, error: Exception) -> Response:
    """Starlette's exception handler for `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


async def http_exception_response(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405) as problem details."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return Problem(error.status_code, code, str(error.detail), headers=error.headers).response()


EXCEPTION_HANDLERS: dict[Any, Any] = {Problem: problem_response, HTTPException: http_exception_response}
"""Give these to `starlette.applications.Starlette(exception_handlers=...)`."""
