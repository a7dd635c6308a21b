"""What a signer sees of a signature by its id."""

from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import pytest

from services.ingest.problems import KINDS, problem
from services.ingest.web.pages import REASONS, STATES, problem_page, status_page
from services.ingest.web.schemas import SignatureStatus, State
from services.verify.deciding.rules import REASONS as REASON_CODES

PAGES = "https://pages.example"
BACK = f"{PAGES}/p/night-trains"


def status(state: State, reason: str | None = None) -> SignatureStatus:
    return SignatureStatus(
        signature_id=UUID("019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"),
        petition_id="night-trains",
        status=state,
        reason=reason,
        decided_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_is_said_in_words_with_the_way_back(state: State) -> None:
    page = status_page(status(state), pages_url=PAGES, back=BACK)
    text = bytes(page.body).decode()
    heading, sentence = STATES[state]
    assert page.status_code == 200
    assert heading in text
    assert sentence in text
    assert f'href="{BACK}"' in text
    assert ("Look again" in text) == (state == "submitted"), "only this one changes by itself in a moment"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("reason", REASON_CODES)
def test_every_reason_is_said_in_words(reason: str) -> None:
    page = status_page(status("rejected", reason), pages_url=PAGES, back=BACK)
    assert REASONS[reason] in bytes(page.body).decode()
    assert reason not in bytes(page.body).decode()


def test_the_page_has_the_style_of_the_petitions_pages_and_loads_nothing_else() -> None:
    page = status_page(status("verified"), pages_url=PAGES, back=BACK)
    assert f'<link rel="stylesheet" href="{PAGES}/static/site.css">' in bytes(page.body).decode()
    policy = page.headers["content-security-policy"]
    assert f"style-src {PAGES};" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", KINDS)
def test_what_keeps_a_signature_from_being_looked_up_is_a_page_with_its_status(name: str) -> None:
    page = problem_page(problem(name), pages_url=PAGES)
    assert page.status_code == KINDS[name].status
    assert '<html lang="en">' in bytes(page.body).decode()
    if KINDS[name].retry_after is not None:
        assert page.headers["retry-after"] == str(KINDS[name].retry_after)


def test_a_page_never_runs_what_it_says() -> None:
    page = problem_page(problem("internal_error", detail="</p><script>alert(1)</script>"), pages_url=PAGES)
    assert b"<script>" not in bytes(page.body)
