"""Errors of all HTTP services as RFC 9457 problem details, and which clients get an HTML page instead.

Plain types, so that rules raise a `Problem` without depending on a web framework. `shared.web.problem_answers` turns them
into answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """A request is refused: what went wrong and what to do (RFC 9457).

    Rules raise only this error to refuse a request.

    Args:
        status: The HTTP status.
        code: A stable, short name of the problem; the last part of its ``type``.
        detail: A sentence for the client.
        errors: For 422: one entry per field, ``{"field": ..., "code": ..., "problem": ...}``.
        retry_after: For 429 and 503: seconds to wait.
        headers: Additional header fields of the answer.
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
        """Return the problem details object."""
        body: dict[str, Any] = {
            "type": f"urn:groundswell:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [dict(error) for error in self.errors]
        return body


class FieldProblem(BaseModel):
    """A field that must be corrected."""

    model_config = ConfigDict(frozen=True)

    field: str
    code: Annotated[str, Field(description="What is wrong, as a stable name.", pattern=r"^[a-z_]+$")]
    problem: Annotated[str, Field(description="The same in a sentence, without what was sent.")]


class ProblemDetails(BaseModel):
    """What went wrong and what to do (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: Annotated[str, Field(pattern=r"^urn:groundswell:problem:[a-z_]+$")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    errors: Annotated[list[FieldProblem], Field(description="One entry per field that is invalid or missing.")] = []


def prefers_html(accept: bytes | None) -> bool:
    """Return whether an Accept field (RFC 9110, section 12.5.1) prefers HTML to JSON, as browsers do.

    The most specific matching range applies. Media types are case-insensitive. A range with an invalid weight has weight 0.

    Args:
        accept: The field's value, or several joined by commas; None if there is none.
    """
    if accept is None or b"text/" not in (accept := accept.lower()):
        return False  # nearly every client that is not a browser
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
