"""Errors as RFC 9457 problem details."""

import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.web.problem_answers import EXCEPTION_HANDLERS, answer_to
from shared.web.problems import Problem, prefers_html


def test_a_problem_says_what_went_wrong_in_the_five_members_of_the_rfc() -> None:
    problem = Problem(422, "invalid_fields", "Put these right.", errors=[{"field": "email", "problem": "is missing"}])
    response = answer_to(problem)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(bytes(response.body)) == {
        "type": "urn:groundswell:problem:invalid_fields",
        "title": "Invalid fields",
        "status": 422,
        "detail": "Put these right.",
        "errors": [{"field": "email", "problem": "is missing"}],
    }
    assert str(problem) == "Put these right."


def test_a_problem_without_fields_has_no_errors_member() -> None:
    assert "errors" not in Problem(404, "unknown_petition", "There is none.").body()


def test_a_problem_that_passes_says_when_to_try_again() -> None:
    response = answer_to(Problem(503, "kafka_away", "Soon.", retry_after=5, headers={"x-more": "1"}))
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-more"] == "1"


async def _raise_problem(_: Request) -> Response:
    raise Problem(410, "closed", "This petition is closed.")


async def test_an_application_answers_its_own_and_starlettes_refusals_as_problems() -> None:
    app = Starlette(routes=[Route("/closed", _raise_problem)], exception_handlers=EXCEPTION_HANDLERS)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    for method, path, status, kind in (
        ("GET", "/closed", 410, "closed"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/closed", 405, "method_not_allowed"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:groundswell:problem:{kind}"
        assert answer.json()["status"] == status
        assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"application/json, text/plain, */*", False),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True),
        (b"text/html", True),
        (b"TEXT/HTML", True),
        (b"Text/Html ; Q=0.9 , */*;q=0.8", True),
        (b"text/html;level=1;q=0.9,*/*;q=0.8", True),
        (b"text/*", True),
        (b"text/*, application/json", False),
        (b"text/*;q=0.5, text/html;q=0.1, application/json;q=0.2", False),
        (b"*/*, application/json;q=0.5, text/html", True),
        (b"*/*;q=0.1, application/*, text/html;q=0.5", False),
        (b"text/html;q=0.5, application/json", False),
        (b"text/html;q=0.5, application/problem+json", False),
        (b"text/html, application/json;q=0.5", True),
        (b"application/json, text/html", False),
        (b"text/html;q=0", False),
        (b"text/html;q=0.000", False),
        (b"text/html;q=0.001", True),
        (b"text/html;q=nonsense", False),
        (b"text/html;q=nan", False),
        (b"text/html;q=inf, application/json", False),
        (b"text/html;q=-1", False),
        (b"text/html;q=1.5, application/json", False),
        (b"text/htmlish", False),
        (b"image/svg, text/html;q=", False),
        (b",;,=;text/html", False),
    ],
)
def test_a_page_is_for_those_who_ask_for_html_first(accept: bytes | None, html: bool) -> None:
    assert prefers_html(accept) is html
