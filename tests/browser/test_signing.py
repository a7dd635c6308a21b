"""Signing in a browser, on the whole running system: with JavaScript and without, right and wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.browsing import opened
from tests.support.system import System
from tests.support.waiting import eventually

BOTH_WAYS = pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])


async def sign(page: Page, email: str, *, country: str = "Netherlands") -> None:
    """Fill the form in as a signer does, and send it."""
    await page.get_by_label("Name").fill("Robin Example")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Country").select_option(country)
    await page.get_by_role("button", name="Sign").click()


async def is_thanked(page: Page, petition: str, system: System) -> None:
    await expect(page).to_have_url(
        re.compile(re.escape(f"{system.tally}/p/{petition}/thanks?signature=") + "[0-9a-f-]{36}")
    )
    await expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")


async def shows_after_reloads(page: Page, count: str) -> None:
    """Reload as a reader without JavaScript does, until the page shows `count`."""

    async def shown() -> bool:
        await page.reload()
        return await page.get_by_test_id("petition-count").text_content() == count

    await eventually(shown, f"a reload shows {count}")


async def test_with_javascript_the_count_moves_on_the_thank_you_page(chromium: Browser, system: System) -> None:
    await system.start_petition("signed-live", milestones=[5])
    await system.surge("signed-live", range(3))
    await system.counts_to("signed-live", 3)
    async with opened(chromium, f"{system.tally}/p/signed-live", also=[system.ingest]) as page:
        await expect(page.get_by_test_id("petition-count")).to_have_text("3")
        await sign(page, "robin@mail.example")
        await is_thanked(page, "signed-live", system)
        await expect(page.get_by_test_id("petition-count")).to_have_text("4")
        await expect(page.get_by_test_id("next-milestone")).to_have_text("1 more to reach 5")
    await system.is_proved("signed-live", 4)


async def test_without_javascript_a_reload_shows_the_new_count(chromium: Browser, system: System) -> None:
    await system.start_petition("signed-plain", milestones=[5])
    await system.surge("signed-plain", range(3))
    await system.counts_to("signed-plain", 3)
    async with opened(chromium, f"{system.tally}/p/signed-plain", javascript=False, also=[system.ingest]) as page:
        await expect(page.get_by_test_id("petition-count")).to_have_text("3")
        await sign(page, "robin@mail.example")
        await is_thanked(page, "signed-plain", system)
        await shows_after_reloads(page, "4")  # and reloading the thank-you page signs nothing
        await page.get_by_role("link", name="Back to the petition").click()
        await shows_after_reloads(page, "4")  # a page may be a second old
        await expect(page.get_by_test_id("next-milestone")).to_have_text("1 more to reach 5")
    await system.is_proved("signed-plain", 4)


async def test_other_readers_see_the_count_move_without_a_reload(chromium: Browser, system: System) -> None:
    organisation = {"slug": "live-readers", "name": "Live Readers"}
    await system.start_petition("watched", organisation=organisation)
    await system.start_petition("watched-too", organisation=organisation)
    await system.surge("watched-too", range(1_200))
    await system.counts_to("watched-too", 1_200)
    async with (
        opened(chromium, f"{system.tally}/p/watched") as reader,
        opened(chromium, f"{system.tally}/o/live-readers") as overview,
        opened(chromium, f"{system.tally}/p/watched", also=[system.ingest]) as signer,
    ):
        for page in (reader, overview):
            await page.evaluate("window.sameDocument = true")
        await expect(reader.get_by_test_id("petition-count")).to_have_text("0")
        await expect(overview.get_by_test_id("supporters-total")).to_have_text("1,200")
        await sign(signer, "robin@mail.example")
        await expect(reader.get_by_test_id("petition-count")).to_have_text("1")
        await expect(reader.get_by_text("1 supporter", exact=True)).to_be_visible()
        await expect(overview.get_by_test_id("supporters-total")).to_have_text("1,201")
        card = overview.locator("[data-petition-id=watched]")
        await expect(card.get_by_test_id("petition-count")).to_have_text("1")
        for page in (reader, overview):
            assert await page.evaluate("window.sameDocument"), "it was reloaded"


@BOTH_WAYS
async def test_who_signs_again_is_thanked_again_and_counted_once(
    chromium: Browser, system: System, *, javascript: bool
) -> None:
    petition = f"signed-twice-{javascript}".lower()
    await system.start_petition(petition)
    for email in ("robin@mail.example", "ROBIN@Mail.Example"):
        async with opened(
            chromium, f"{system.tally}/p/{petition}", javascript=javascript, also=[system.ingest]
        ) as page:
            await sign(page, email)
            await is_thanked(page, petition, system)
    await system.decided(petition, 2)
    assert await system.states(petition) == {"verified": 1, "duplicate": 1}
    await system.is_proved(petition, 1)


@BOTH_WAYS
async def test_what_is_wrong_with_a_form_is_said_at_its_field_and_nothing_typed_is_lost(
    chromium: Browser, system: System, *, javascript: bool
) -> None:
    petition = f"mistyped-{javascript}".lower()
    await system.start_petition(petition)
    url = f"{system.tally}/p/{petition}"
    async with opened(chromium, url, javascript=javascript, also=[system.ingest], refusals=[422]) as page:
        # The browser checks much by itself; these pass its checks, and not ours.
        await page.get_by_label("Why do you sign?").fill("\nI swim.\n\nOften.")
        await sign(page, "robin@nowhere")
        await expect(page).to_have_title(f"Error: Petition {petition}")
        assert page.url.partition("?")[0] == url
        assert "robin" not in page.url
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"Petition {petition}")
        await expect(page.get_by_test_id("petition-count")).to_have_text("0")
        email = page.get_by_label("E-mail address")
        await expect(email).to_be_focused()
        assert await email.get_attribute("aria-invalid") == "true"
        described = await email.evaluate(
            "field => field.getAttribute('aria-describedby').split(' ').map(id => document.getElementById(id).innerText)"
        )
        assert described[0].startswith("Error:")
        await expect(page.get_by_role("alert").get_by_role("link", name="E-mail address")).to_have_attribute(
            "href", "#email"
        )
        await expect(page.get_by_label("Name")).to_have_value("Robin Example")
        await expect(email).to_have_value("robin@nowhere")
        await expect(page.get_by_label("Country")).to_have_value("NL")
        await expect(page.get_by_label("Why do you sign?")).to_have_value("\nI swim.\n\nOften.")
        await email.fill("robin@mail.example")
        await page.get_by_role("button", name="Sign").click()
        await is_thanked(page, petition, system)
    await system.decided(petition, 1)
    await system.is_proved(petition, 1)


@BOTH_WAYS
async def test_a_signer_looks_up_what_became_of_the_signature(
    chromium: Browser, system: System, *, javascript: bool
) -> None:
    petition = f"looked-up-{javascript}".lower()
    await system.start_petition(petition)
    async with opened(chromium, f"{system.tally}/p/{petition}", javascript=javascript, also=[system.ingest]) as page:
        await sign(page, "robin@mail.example")
        await is_thanked(page, petition, system)
        await system.decided(petition, 1)
        await page.get_by_role("link", name="See what has become of your signature").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your signature counts")
        assert await page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "640px", (
            "in the site's style"
        )
        await page.get_by_role("link", name="Back to the petition").click()
        await expect(page).to_have_url(f"{system.tally}/p/{petition}")


@BOTH_WAYS
async def test_a_page_that_was_opened_under_another_host_name_moves_on_all_the_same(
    chromium: Browser, system: System, *, javascript: bool
) -> None:
    petition = f"other-name-{javascript}".lower()
    await system.start_petition(petition)
    elsewhere = f"{system.tally.replace('127.0.0.1', 'localhost')}/p/{petition}"
    assert elsewhere != f"{system.tally}/p/{petition}"
    also = [system.ingest, system.tally]
    async with opened(chromium, elsewhere, javascript=javascript, also=also, refusals=[422]) as page:
        await sign(page, "robin@nowhere")
        await expect(page.get_by_label("E-mail address")).to_have_value("robin@nowhere")
        await expect(page.get_by_label("E-mail address")).to_be_focused()
        await page.goto(elsewhere)
        await sign(page, "robin@mail.example")
        await is_thanked(page, petition, system)


async def test_the_browser_itself_asks_for_what_is_missing(chromium: Browser, system: System) -> None:
    await system.start_petition("left-empty")
    async with opened(chromium, f"{system.tally}/p/left-empty") as page:
        for label in ("Name", "E-mail address", "Country"):
            await page.get_by_role("button", name="Sign").click()
            field = page.get_by_label(label)
            await expect(field).to_be_focused()
            assert await field.evaluate("field => field.matches(':invalid')")
            if label == "Country":
                break
            await field.fill("robin@mail.example")
        await expect(page).to_have_url(f"{system.tally}/p/left-empty")


async def test_a_closed_petition_shows_its_count_and_no_form(chromium: Browser, system: System) -> None:
    await system.start_petition("closed-now", milestones=[5])
    await system.surge("closed-now", range(2))
    await system.counts_to("closed-now", 2)
    async with opened(chromium, f"{system.tally}/p/closed-now", also=[system.ingest], refusals=[410]) as page:
        await system.start_petition("closed-now", milestones=[5], closes_at="2026-01-31T12:00:00Z")
        # A form that was opened before says so too.
        await sign(page, "late@mail.example")
        await expect(page.get_by_role("alert")).to_contain_text("This petition has closed.")
        await expect(page.get_by_role("alert")).to_be_focused()
        await page.goto(f"{system.tally}/p/closed-now")

        async def says_so() -> bool:
            await page.reload()  # a page may be a second old
            return await page.get_by_role("heading", name="This petition is closed").count() == 1

        await eventually(says_so, "the petition's page says that it is closed")
        await expect(page.get_by_text("31 January 2026, 12:00 UTC")).to_be_visible()
        await expect(page.get_by_test_id("petition-count")).to_have_text("2")
        await expect(page.get_by_role("textbox")).to_have_count(0)
        await expect(page.get_by_role("button")).to_have_count(0)
        await expect(page.get_by_role("link", name="Sign this petition")).to_have_count(0)


async def test_a_petition_that_opens_later_says_when(chromium: Browser, system: System) -> None:
    await system.start_petition("opens-later", opens_at="2099-03-04T05:06:00Z")
    async with opened(chromium, f"{system.tally}/p/opens-later") as page:
        await expect(page.get_by_role("heading", name="This petition is not open yet")).to_be_visible()
        await expect(page.get_by_text("4 March 2099, 05:06 UTC")).to_be_visible()
        await expect(page.get_by_role("textbox")).to_have_count(0)


@BOTH_WAYS
async def test_a_petition_with_rules_of_its_own_asks_for_what_they_need(
    chromium: Browser, system: System, *, javascript: bool
) -> None:
    petition = f"own-rules-{javascript}".lower()
    policy: dict[str, Any] = {"confirmation": "required", "countries": ["NL", "BE"], "require_consent": True}
    await system.start_petition(petition, policy=policy)
    async with opened(chromium, f"{system.tally}/p/{petition}", javascript=javascript, also=[system.ingest]) as page:
        choices = page.get_by_label("Country").locator("option")
        assert await choices.all_text_contents() == ["Choose a country", "Belgium", "Netherlands"]
        await sign(page, "robin@mail.example", country="Belgium")
        await expect(page).to_have_url(f"{system.tally}/p/{petition}")  # consent is missing
        await page.get_by_label("I agree").check()
        await page.get_by_role("button", name="Sign").click()
        await is_thanked(page, petition, system)
        await expect(page.get_by_text("It counts once you have confirmed your e-mail address.")).to_be_visible()
    await system.decided(petition, 1)
    assert await system.states(petition) == {"pending": 1}
    await system.is_proved(petition, 0)
