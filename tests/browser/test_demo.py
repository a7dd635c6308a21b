"""The demo from the command line, and its organisation's page in a browser afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from deploy.local import PROJECT_ROOT
from deploy.local.state import StackState
from tests.browser.browsing import opened
from tests.support.waiting import eventually

DEMO_SECONDS = 600
"""A minute alone on two cores; a build machine may be busy with other things."""

COUNTS = {"70,350", "19,105", "9,005", "5,934", "4,849", "1,859", "134"}
SUPPORTERS = 111_236


@pytest.fixture(scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[dict[str, Any], StackState]]:
    """`groundswell demo --keep --json`: its output, and where its stack still runs."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with (folder / "stderr").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", "demo", "--keep", "--json", "--state-dir", folder / "state"),
            cwd=PROJECT_ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEMO_SECONDS):
            report = await process.stdout.readline()
        assert report, f"the demo said nothing but:\n{(folder / 'stderr').read_text(encoding='utf-8')}"
        yield json.loads(report), StackState.read(folder / "state")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does
        async with asyncio.timeout(60):
            exit_code = await process.wait()
    assert exit_code == 0, "everything was right, and it was only asked to stop"


async def test_after_the_demo_the_organisations_page_shows_seven_petitions_and_111_236_supporters_and_signing_moves_them(
    chromium: Browser, demo: tuple[dict[str, Any], StackState]
) -> None:
    report, stack = demo
    assert report["ok"], report
    assert report["supporters"] == SUPPORTERS
    overview = f"{stack.tally_url}/o/quillmere-neighbours"
    for javascript in (True, False):
        async with opened(chromium, overview, javascript=javascript) as page:
            await expect(page.get_by_test_id("petition-card")).to_have_count(7)
            await expect(page.get_by_test_id("petitions-started")).to_have_text("7")
            await expect(page.get_by_test_id("supporters-total")).to_have_text(f"{SUPPORTERS:,}")
            assert set(await page.get_by_test_id("petition-count").all_text_contents()) == COUNTS

    async with opened(chromium, overview) as watched:
        for signers, javascript in ((1, True), (2, False)):
            async with opened(chromium, overview, javascript=javascript, also=[stack.ingest_url]) as page:
                await page.get_by_role("link", name="Bring back the evening ferry").click()
                await sign(page, f"signer{signers}@mail.example")
                await page.get_by_role("link", name="More petitions by").click()
                await shows(page, f"{SUPPORTERS + signers:,}", reload=not javascript)
            await shows(watched, f"{SUPPORTERS + signers:,}", reload=False)


async def sign(page: Page, email: str) -> None:
    await page.get_by_label("Name").fill("Robin Example")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Country").select_option("Netherlands")
    await page.get_by_role("button", name="Sign").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")


async def shows(page: Page, supporters: str, *, reload: bool) -> None:
    async def shown() -> bool:
        if reload:
            await page.reload()
        return await page.get_by_test_id("supporters-total").text_content() == supporters

    await eventually(shown, f"the organisation's page shows {supporters}")
