"""The pages on the whole running system: what they say, and that everybody can read and use them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.browsing import opened
from tests.support.system import System
from tests.support.waiting import eventually

ORGANISATION = {"slug": "page-readers", "name": "Readers of Pages"}
BUS = "readers-night-bus"
PAGES = [f"/p/{BUS}", f"/p/{BUS}/thanks", "/o/page-readers", "/p/there-is-no-such-petition"]
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")

HOSTILE = (
    "</title></script><script>window.hacked = true</script><img src=x onerror='window.hacked = true'>\"&amp;{{7*7}}"
)


def target(name: str, kind: str = "person") -> dict[str, str]:
    return {"target_id": name.lower().replace(" ", "-"), "name": name, "kind": kind, "email": "office@town.example"}


async def two_petitions(system: System) -> None:
    """An organisation with two petitions, as every page shows them; made once."""
    if await system.count(BUS) == 3:
        return
    await system.start_petition(
        BUS,
        organisation=ORGANISATION,
        title="A night bus for those who work late",
        text="The last bus leaves at 22:40.\n\nWe ask for three more departures. " + "They would be full. " * 20,
        targets=[target("Town Transport", "body"), target("Mayor")],
        milestones=[2, 10],
    )
    await system.start_petition(
        "readers-library",
        organisation=ORGANISATION,
        title="Open the library on Sundays",
        text="It is the warmest room in town.",
        targets=[target("Head Librarian")],
        closes_at="2026-01-31T12:00:00Z",
    )
    await system.surge(BUS, range(3))
    await system.counts_to(BUS, 3)


def url_of(path: str, system: System) -> str:
    return system.tally + path


def refusals_of(path: str) -> list[int]:
    return [404] if "no-such" in path else []


async def test_an_organisations_page_shows_its_petitions_whom_they_address_and_the_sum(
    chromium: Browser, system: System
) -> None:
    await two_petitions(system)
    async with opened(chromium, f"{system.tally}/o/page-readers", javascript=False) as page:
        await expect(page.get_by_role("heading", level=1)).to_have_text("Readers of Pages")
        await expect(page.get_by_test_id("petitions-started")).to_have_text("2")
        await expect(page.get_by_test_id("supporters-total")).to_have_text("3")
        cards = page.get_by_test_id("petition-card")
        await expect(cards).to_have_count(2)
        bus, library = cards.first, cards.last  # by their supporters
        await expect(bus.get_by_role("heading", level=3)).to_have_text("A night bus for those who work late")
        await expect(bus).to_contain_text("To: Town Transport and Mayor")
        await expect(bus).to_contain_text("The last bus leaves at 22:40.")
        await expect(bus.get_by_test_id("petition-count")).to_have_text("3")
        await expect(library).to_contain_text("To: Head Librarian")
        await expect(library.get_by_test_id("petition-count")).to_have_text("0")
        await expect(library).to_contain_text("Closed")
        await bus.get_by_role("link").click()
        await expect(page).to_have_url(f"{system.tally}/p/{BUS}")
        await expect(page.get_by_role("heading", level=1)).to_have_text("A night bus for those who work late")
        await page.get_by_role("link", name="Readers of Pages").click()
        await expect(page).to_have_url(f"{system.tally}/o/page-readers")


async def test_the_pages_show_what_people_wrote_as_text_and_run_none_of_it(chromium: Browser, system: System) -> None:
    await system.start_petition(
        "hostile",
        organisation={"slug": "hostile-words", "name": f"We {HOSTILE}"},
        title=f"Stop {HOSTILE}",
        text=f"Because {HOSTILE}",
        targets=[{**target("Mayor"), "name": f"The {HOSTILE}"}],
    )
    for path in ("/p/hostile", "/o/hostile-words", "/p/hostile/thanks"):
        async with opened(chromium, url_of(path, system)) as page:
            assert await page.evaluate("window.hacked") is None
            assert await page.locator("img, main script").count() == 0
            body = await page.locator("body").inner_text()
            assert f"Stop {HOSTILE}" in body
            assert "49" not in body
            if "thanks" not in path:
                assert f"The {HOSTILE}" in body
                assert f"Because {HOSTILE}" in body
            assert HOSTILE in await page.title()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_allowed_nothing_but_its_own_files(path: str, system: System) -> None:
    await two_petitions(system)
    answer = await system.http.get(url_of(path, system))
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert set(policy["form-action"].split()) <= {"'self'", system.ingest, system.tally}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_has_the_structure_that_a_screen_reader_needs(
    path: str, chromium: Browser, system: System
) -> None:
    await two_petitions(system)
    async with opened(chromium, url_of(path, system), refusals=refusals_of(path)) as page:
        await has_structure(page)
        await stands_out(page)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()


async def has_structure(page: Page) -> None:
    assert await page.locator("html").get_attribute("lang") == "en"
    assert await page.title()
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    await expect(page.get_by_role("main")).to_have_count(1)
    levels = [
        int(tag[1])
        for tag in await page.locator("h1, h2, h3, h4, h5, h6").evaluate_all("all => all.map(h => h.tagName)")
    ]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels)), levels
    ids = await page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    unnamed = await page.locator("input, select, textarea, button, a, progress").evaluate_all(
        """all => all.filter((one) => {
            const described = (one.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
            const names = [...(one.labels ?? []), ...described.map((id) => document.getElementById(id)), one];
            return !names.some((name) => name?.textContent.trim());
        }).map(one => one.outerHTML)"""
    )
    assert unnamed == []
    for field in await page.locator("input, select, textarea").all():
        assert await field.evaluate("field => field.labels.length") == 1, "a placeholder is no label"
        box = await field.bounding_box()
        assert box is not None
        assert box["height"] >= 20


async def stands_out(page: Page) -> None:
    """Every text has enough contrast with what is behind it."""
    texts: list[dict[str, Any]] = await page.evaluate(CONTRAST)
    assert len(texts) >= 3
    assert [text for text in texts if not text["enough"]] == []


@pytest.mark.parametrize("path", PAGES)
async def test_on_a_phone_at_night_a_page_can_be_read_and_used_with_a_finger(
    path: str, chromium: Browser, system: System
) -> None:
    await two_petitions(system)
    phone = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 3, "is_mobile": True, "has_touch": True}
    async with opened(chromium, url_of(path, system), refusals=refusals_of(path), color_scheme="dark", **phone) as page:
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, "it has to be scrolled sideways"
        await stands_out(page)
        for control in await page.locator("input[type=text], input[type=email], select, textarea, .button").all():
            box = await control.bounding_box()
            assert box is not None
            assert box["height"] >= 44, "too small for a finger"
            assert float(await control.evaluate("one => parseFloat(getComputedStyle(one).fontSize)")) >= 16


async def test_the_page_about_a_wrong_form_is_as_readable_as_the_others(chromium: Browser, system: System) -> None:
    await two_petitions(system)
    for scheme in ("light", "dark"):
        async with opened(
            chromium,
            f"{system.tally}/p/{BUS}",
            also=[system.ingest],
            refusals=[422],
            color_scheme=scheme,
            viewport={"width": 360, "height": 740},
        ) as page:
            await page.get_by_test_id("sign-form").evaluate("form => { form.noValidate = true; }")
            await page.get_by_role("button", name="Sign").click()
            await expect(page.get_by_role("alert")).to_contain_text("Please look at the form again")
            await expect(page.get_by_role("alert").get_by_role("listitem")).to_have_count(3)
            await expect(page.get_by_label("Name")).to_be_focused()
            await has_structure(page)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360
            await stands_out(page)


async def test_while_the_counts_cannot_be_read_the_page_shows_the_last_one_and_the_form(
    chromium: Browser, system: System
) -> None:
    await two_petitions(system)
    assert system.stack.valkey is not None
    async with opened(chromium, f"{system.tally}/p/{BUS}") as page:
        await system.stack.valkey.stop()
        try:
            await page.reload()
            await expect(page.get_by_test_id("petition-count")).to_have_text("3")
            await expect(page.get_by_test_id("age")).to_contain_text("As of ")
            await expect(page.get_by_label("E-mail address")).to_be_editable()
            await stands_out(page)
        finally:
            await system.stack.valkey.start()

        async def back() -> bool:
            await page.reload()
            return await page.get_by_test_id("age").count() == 0

        await eventually(back, "the page is back")
        await expect(page.get_by_test_id("petition-count")).to_have_text("3")
