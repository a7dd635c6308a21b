"""How refusals are answered and counted."""

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
    """Makes the response to a refusal, and counts it.

    Args:
        pages_url: Where the petitions' pages are.
    """

    def __init__(self, *, pages_url: str, metrics: IngestMetrics) -> None:
        self._pages_url, self._metrics = pages_url, metrics
        # Made once: what turning away costs is missing where signatures are taken in.
        self._overloaded = answer_to(problem_named("overloaded"))

    def refuse(self, problem: Problem) -> Response:
        """The problem as JSON, for programs."""
        self._metrics.count_refusal(problem)
        return self._overloaded if problem.code == "overloaded" else answer_to(problem)

    def refuse_page(self, problem: Problem) -> Response:
        """The problem as a page of its own, for a person who asked for one."""
        self._metrics.count_refusal(problem)
        return problem_page(problem, pages_url=self._pages_url)

    def refuse_form(self, problem: Problem, headers: Mapping[bytes, bytes], petition_id: str) -> Response:
        """On to the petition's page if a browser's form is waiting, else the problem as JSON.

        307 lets the browser send the same form again, to the page, which shows it with what was typed. So nothing has to be
        kept here or put into an address; the address names the refusal, the wrong fields, and seconds to wait.
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
        """Where a signed form goes on to. Nothing in it says who signed; with the id the signer can look it up."""
        return f"{self._pages_url}/p/{petition_id}/thanks?signature={signature_id}"

    def status_page(self, status: SignatureStatus) -> Response:
        """Where a signature stands, for a person."""
        back = None if status.petition_id is None else self.petition_url(status.petition_id)
        return status_page(status, pages_url=self._pages_url, back=back)
