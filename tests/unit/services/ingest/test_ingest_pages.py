"""What people see when their form could not be taken."""

import pytest

from services.ingest.pages import prefers_html, problem_page
from services.ingest.problems import KINDS, problem


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (None, False),
        (b"*/*", False),
        (b"application/json", False),
        (b"application/json, text/plain, */*", False),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", True),
        (b"text/html;q=0.5, application/json", False),
        (b"text/html, application/json;q=0.5", True),
        (b"application/json, text/html", False),
        (b"text/html;q=0", False),
        (b"text/html;q=nonsense", False),
        (b"TEXT/HTML", False),
    ],
)
def test_a_page_is_for_those_who_ask_for_html_first(accept, html):
    assert prefers_html(accept) is html


@pytest.mark.parametrize("name", KINDS)
def test_every_refusal_has_a_page_with_its_status_and_the_way_back(name):
    page = problem_page(problem(name), back="https://pages.example/p/night-trains")
    text = bytes(page.body).decode()
    assert page.status_code == KINDS[name].status
    assert '<a href="https://pages.example/p/night-trains">' in text
    assert '<html lang="en">' in text
    assert page.headers["referrer-policy"] == "no-referrer"
    if KINDS[name].retry_after is not None:
        assert page.headers["retry-after"] == str(KINDS[name].retry_after)


def test_a_page_never_runs_what_was_sent():
    errors = [{"field": "<script>", "problem": "</li><script>alert(1)</script>"}]
    page = problem_page(problem("invalid_fields", errors=errors), back='https://pages.example/p/"><script>')
    assert b"<script>" not in bytes(page.body)


def test_fields_are_called_what_the_form_calls_them():
    page = problem_page(problem("invalid_fields", errors=[{"field": "email", "problem": "no"}]), back=None)
    assert "E-mail address" in bytes(page.body).decode()
