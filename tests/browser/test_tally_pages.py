"""The pages in a real browser: live numbers with JavaScript, everything else without it."""

from collections.abc import AsyncIterator

import pytest
import uvicorn
from playwright.async_api import Browser, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from shared.contract.events import Policy
from tests.browser.browsing import opened
from tests.support.tally_read_fakes import BUS, HARBOUR, ReadSide, Served, petition, served, serving, tally


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide()
    side.catalogue.apply(petition(HARBOUR))
    side.catalogue.apply(petition(BUS, title="Later night buses"))
    side.reader.put(tally(HARBOUR, 4_849), tally(BUS, 106_387))
    return side


@pytest.fixture
async def server(read_side: ReadSide) -> AsyncIterator[Served]:
    async with served(read_side) as running:
        yield running


async def test_an_organisations_page_follows_all_its_petitions(
    chromium: Browser, server: Served, read_side: ReadSide
) -> None:
    async with opened(chromium, f"{server.url}/o/river-valley") as page:
        await expect(page.get_by_test_id("petition-card")).to_have_count(2)
        await expect(page.get_by_test_id("supporters-total")).to_have_text("111,236")
        read_side.hub.publish(tally(HARBOUR, 4_850))
        read_side.hub.publish(tally(BUS, 106_400))
        await expect(page.get_by_test_id("supporters-total")).to_have_text("111,250")
        bus = page.locator(f"[data-petition-id={BUS}]").get_by_test_id("petition-count")
        await expect(bus).to_have_text("106,400")
        assert read_side.metric("stream_subscribers") == 1, "one stream for all petitions"


async def test_a_reload_shows_the_newest_count(chromium: Browser, server: Served, read_side: ReadSide) -> None:
    async with opened(chromium, f"{server.url}/p/{HARBOUR}") as page:
        await expect(page.get_by_test_id("petition-count")).to_have_text("4,849")
        read_side.reader.put(tally(HARBOUR, 4_900))
        await page.reload()
        await expect(page.get_by_test_id("petition-count")).to_have_text("4,900")


async def test_a_petitions_page_follows_its_count_past_the_milestones(
    chromium: Browser, server: Served, read_side: ReadSide
) -> None:
    read_side.reader.put(tally(HARBOUR, 1))
    async with opened(chromium, f"{server.url}/p/{HARBOUR}") as page:
        count, milestone = page.get_by_test_id("petition-count"), page.get_by_test_id("next-milestone")
        await expect(page.get_by_text("1 supporter", exact=True)).to_be_visible()
        read_side.hub.publish(tally(HARBOUR, 999))
        await expect(count).to_have_text("999")
        await expect(milestone).to_have_text("1 more to reach 1,000")
        read_side.hub.publish(tally(HARBOUR, 1_000))
        await expect(milestone).to_have_text("4,000 more to reach 5,000")
        read_side.hub.publish(tally(HARBOUR, 5_000))
        await expect(milestone).to_have_text("All milestones reached, the last one at 5,000")
        assert await page.get_by_role("progressbar").evaluate("bar => bar.value / bar.max") == 1


async def test_a_tab_that_is_left_gives_its_place_back(chromium: Browser, server: Served, read_side: ReadSide) -> None:
    async with opened(chromium, f"{server.url}/p/{HARBOUR}") as page:
        async with page.expect_response("**/tally/stream?detail=count"):
            await page.reload()
        await page.goto("about:blank")
        read_side.hub.publish(tally(HARBOUR, 4_850))  # a closed connection is noticed at the latest when it is used
        for _ in range(100):
            if read_side.metric("stream_subscribers") == 0:
                break
            await page.wait_for_timeout(50)
        assert read_side.metric("stream_subscribers") == 0


async def test_without_javascript_the_numbers_and_the_form_are_there(chromium: Browser, server: Served) -> None:
    async with opened(chromium, f"{server.url}/p/{HARBOUR}", javascript=False) as page:
        await expect(page.get_by_test_id("petition-count")).to_have_text("4,849")
        await expect(page.get_by_test_id("next-milestone")).to_have_text("151 more to reach 5,000")
        await expect(page.get_by_label("E-mail address")).to_be_editable()
    async with opened(chromium, f"{server.url}/o/river-valley", javascript=False) as page:
        await expect(page.get_by_test_id("supporters-total")).to_have_text("111,236")


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])
async def test_a_signer_fills_the_form_in_and_is_thanked(
    chromium: Browser, read_side: ReadSide, *, javascript: bool
) -> None:
    received: list[dict[str, object]] = []
    pages = ""

    async def ingest(request: Request) -> Response:
        """A stand-in for ingest: it takes the browser's form and redirects to the thank-you page."""
        received.append({"petition": request.path_params["petition_id"], **(await request.form())})
        return RedirectResponse(f"{pages}/p/{request.path_params['petition_id']}/thanks", 303)

    app = Starlette(routes=[Route("/v1/petitions/{petition_id}/signatures", ingest, methods=["POST"])])
    read_side.catalogue.apply(petition(HARBOUR, policy=Policy(require_consent=True)))
    async with serving(uvicorn.Config(app, port=0, log_config=None, lifespan="off")) as other:
        read_side.ingest_url = other.url
        async with (
            served(read_side) as server,
            opened(chromium, f"{server.url}/p/{HARBOUR}", javascript=javascript, also=[other.url]) as page,
        ):
            pages = server.url
            await page.get_by_label("Name").fill("Robin Example")
            await page.get_by_label("E-mail address").fill("robin@mail.example")
            await page.get_by_label("Country").select_option("Netherlands")
            await page.get_by_label("Why do you sign?").fill("I swim.")
            await page.get_by_label("I agree").check()
            await page.get_by_role("button", name="Sign").click()
            await expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")
            await page.get_by_role("link", name="Back to the petition").click()
            await expect(page.get_by_role("heading", level=1)).to_have_text("Open the harbour baths in winter")
    assert received == [
        {
            "petition": HARBOUR,
            "name": "Robin Example",
            "email": "robin@mail.example",
            "country": "NL",
            "postcode": "",
            "comment": "I swim.",
            "consent": "true",
        }
    ]


async def test_the_age_of_a_count_goes_when_a_newer_one_comes(
    chromium: Browser, server: Served, read_side: ReadSide
) -> None:
    read_side.hub.publish(tally(HARBOUR, 4_849))
    read_side.reader.go_away()
    for path in (f"/p/{HARBOUR}", "/o/river-valley"):
        async with opened(chromium, f"{server.url}{path}") as page:
            age, count = page.get_by_test_id("age"), page.locator(f"[data-count={HARBOUR}]")
            await expect(age).to_contain_text("s of 1 March 2026, 12:00 UTC")
            shown = int((await count.inner_text()).replace(",", ""))
            async with page.expect_response("**/stream*"):
                await page.reload()
            read_side.hub.publish(tally(HARBOUR, shown + 1))
            await expect(count).to_have_text(f"{shown + 1:,}")
            await expect(age).to_have_count(0)


async def test_texts_from_right_to_left_stand_on_the_right_and_the_pages_own_words_on_the_left(
    chromium: Browser, server: Served, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(petition(HARBOUR, title="افتحوا المسبح!", text="יש לפתוח את הבריכה.", language="ar"))
    for path in (f"/p/{HARBOUR}", "/o/river-valley"):
        async with opened(chromium, f"{server.url}{path}", javascript=False) as page:
            for text, direction in (("افتحوا المسبح!", "rtl"), ("יש לפתוח את הבריכה.", "rtl"), ("To:", "ltr")):
                place = page.get_by_text(text).first
                style = await place.evaluate(
                    "one => { const s = getComputedStyle(one); return [s.direction, s.textAlign]; }"
                )
                assert style == [direction, "start"]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("path", ["/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks", "/p/nothing"])
async def test_no_page_is_wider_than_its_screen(
    chromium: Browser, server: Served, read_side: ReadSide, path: str, width: int
) -> None:
    read_side.catalogue.apply(petition(HARBOUR, title="A" * 120, text="B" * 300))
    page = await chromium.new_page(viewport={"width": width, "height": 800})
    await page.goto(server.url + path)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.close()
