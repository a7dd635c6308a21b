"""How refusals are answered and counted."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette.responses import Response

from services.ingest.metrics import IngestMetrics
from services.ingest.pages import prefers_html, problem_page
from services.ingest.problems import problem as problem_named
from shared.http import Problem


class Answers:
    """Makes the response to a refusal, and counts it.

    Args:
        pages_url: Where the petitions' pages are.
    """

    def __init__(self, *, pages_url: str, metrics: IngestMetrics) -> None:
        self._pages_url, self._metrics = pages_url, metrics
        # Made once: what turning away costs is missing where signatures are taken in.
        self._overloaded = problem_named("overloaded").response()

    def refuse(self, problem: Problem) -> Response:
        """The problem as JSON, for programs."""
        self._metrics.refused.labels(reason=problem.code).inc()
        return self._overloaded if problem.code == "overloaded" else problem.response()

    def refuse_form(self, problem: Problem, headers: Mapping[bytes, bytes], petition_id: str) -> Response:
        """The problem as a page if a browser's form is waiting for it, else as JSON."""
        if not prefers_html(headers.get(b"accept")):
            return self.refuse(problem)
        self._metrics.refused.labels(reason=problem.code).inc()
        # An unknown petition has no page to go back to.
        known = problem.status != 404
        return problem_page(problem, back=f"{self._pages_url}/p/{quote(petition_id, safe='')}" if known else None)

    def thanks_url(self, petition_id: str) -> str:
        """Where a signed form goes on to. Nothing in it says who signed."""
        return f"{self._pages_url}/p/{petition_id}/thanks"
