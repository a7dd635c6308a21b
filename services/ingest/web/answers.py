"""Answers to refusals, and their count."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from starlette.responses import Response

from services.ingest.metrics import IngestMetrics
from services.ingest.problems import problem as problem_named
from services.ingest.web.bodies import JSON, content_type
from services.ingest.web.pages import problem_page, status_page
from services.ingest.web.schemas import SignatureStatus
from shared.contract.form_errors import FORM_FIELDS
from shared.web.content_type import media_type
from shared.web.problem_answers import answer_to
from shared.web.problems import Problem, prefers_html


class Answers:
    """Makes the response to a refusal, and counts the refusal.

    Args:
        pages_url: The base URL of the petitions' pages.
        metrics: The metrics of ingest.
    """

    def __init__(self, *, pages_url: str, metrics: IngestMetrics) -> None:
        self._pages_url, self._metrics = pages_url, metrics
        # Made once: in an overload, time spent on refusals is missing for signatures.
        self._overloaded = answer_to(problem_named("overloaded"))

    def refuse(self, problem: Problem) -> Response:
        """The problem as JSON, for programs."""
        self._metrics.count_refusal(problem)
        return self._overloaded if problem.code == "overloaded" else answer_to(problem)

    def refuse_page(self, problem: Problem) -> Response:
        """The problem as an HTML page."""
        self._metrics.count_refusal(problem)
        return problem_page(problem, pages_url=self._pages_url)

    def refuse_form(self, problem: Problem, headers: Mapping[bytes, bytes], petition_id: str) -> Response:
        """A redirect to the petition's page for a browser's form, else the problem as JSON.

        307 makes the browser send the same form to the page, which shows it with its input. So ingest need not store the
        input or put it into the address, which only names the refusal, the invalid fields and the seconds to wait.
        """
        if not prefers_html(headers.get(b"accept")) or media_type(content_type(headers)) == JSON:
            return self.refuse(problem)
        self._metrics.count_refusal(problem)
        refusal = [("refused", problem.code)]
        refusal += [
            ("e", f"{error['field']}:{error.get('code', 'invalid')}")
            for error in problem.errors
            if error["field"] in FORM_FIELDS
        ]
        if problem.retry_after is not None:
            refusal.append(("wait", str(problem.retry_after)))
        sent = {**problem.headers, "location": f"{self.petition_url(petition_id)}?{urlencode(refusal, safe=':')}"}
        return Response(status_code=307, headers={**sent, "cache-control": "no-store"})

    def petition_url(self, petition_id: str) -> str:
        """The petition's page."""
        return f"{self._pages_url}/p/{quote(petition_id, safe='')}"

    def thanks_url(self, petition_id: str, signature_id: str) -> str:
        """The thank-you page after a form. It does not reveal the signer, who can query the status with the id."""
        return f"{self._pages_url}/p/{petition_id}/thanks?signature={signature_id}"

    def status_page(self, status: SignatureStatus) -> Response:
        """The status of a signature as an HTML page."""
        back = None if status.petition_id is None else self.petition_url(status.petition_id)
        return status_page(status, pages_url=self._pages_url, back=back)
