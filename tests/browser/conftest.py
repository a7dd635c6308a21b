"""The browser of the browser tests: Debian's Chromium, one for all of them; every page gets a new context."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, async_playwright, expect

FLAGS = [
    "--no-sandbox",  # the tests run as root, in a container or on a build machine
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

expect.set_options(timeout=60_000)  # milliseconds; five seconds are few on a machine that is busy with something else


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.fail("chromium is missing: make test installs it where it may (Debian: chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        await browser.close()
