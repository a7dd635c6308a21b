"""Pages in the browser tests: nothing on a page may fail, be refused, or come from another origin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request


def origin(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@asynccontextmanager
async def opened(
    browser: Browser,
    url: str,
    *,
    javascript: bool = True,
    also: Sequence[str] = (),
    refusals: Sequence[int] = (),
    **context: Any,
) -> AsyncIterator[Page]:
    """A page in a new context. At the end: no error on its console, no request except to its host and `also`.

    Args:
        browser: Where to open it.
        url: What to open.
        javascript: Whether scripts run.
        also: Further URLs whose origins it may request.
        refusals: HTTP statuses that are expected; Chromium writes one line about each.
        context: What `Browser.new_context` takes: viewport, color_scheme, ….
    """
    own = await browser.new_context(java_script_enabled=javascript, **context)
    page = await own.new_page()
    allowed = {origin(one) for one in (url, *also)}
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if not any(f"the server responded with a status of {status} " in message.text for status in refusals):
            complaints.append(message.text)

    def on_request(request: Request) -> None:
        if origin(request.url) not in allowed:
            complaints.append(f"asked {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", on_request)
    await page.goto(url)
    try:
        yield page
    finally:
        await own.close()
    assert complaints == []
