"""The public pages, as a browser without JavaScript gets them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import httpx
import pytest

from shared.countries import COUNTRIES
from shared.events import Organisation, Pause, Policy, Target
from tests.tally_read_fakes import BUS, HARBOUR, ReadSide, petition, tally

NOW = datetime.now(UTC)
FORM_FIELDS = {"email", "name", "country", "postcode", "comment"}


class Page(HTMLParser):
    """A parsed page: its elements in order, each with attributes and the text inside."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(html)
        assert not self._open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in self.VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, tag: str | None = None, **attributes: str) -> list[tuple[dict[str, str | None], str]]:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [
            (attrs, " ".join("".join(text).split()))
            for name, attrs, text in self.elements
            if tag in (None, name) and wanted.items() <= attrs.items()
        ]

    def text(self, testid: str) -> str:
        [(_, text)] = self.all(data_testid=testid)
        return text


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide()
    side.catalogue.apply(petition(HARBOUR))
    side.catalogue.apply(petition(BUS, title="Later night buses"))
    side.reader.put(tally(HARBOUR, 4_849), tally(BUS, 106_387))
    return side


@pytest.fixture
async def client(read_side: ReadSide) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=read_side.app())
    headers = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example", headers=headers) as client:
        yield client


async def page(client: httpx.AsyncClient, path: str, status: int = 200) -> Page:
    answer = await client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


async def test_the_organisations_page_shows_its_supporters_and_petitions(client: httpx.AsyncClient) -> None:
    shown = await page(client, "/o/river-valley")
    assert shown.all("h1")[0][1] == "River Valley Together"
    assert shown.text("supporters-total") == "111,236"
    assert shown.text("petitions-started") == "2"
    assert [attrs["data-petition-id"] for attrs, _ in shown.all(data_testid="petition-card")] == [BUS, HARBOUR]
    assert [text for _, text in shown.all(data_testid="petition-count")] == ["106,387", "4,849"]


async def test_each_petition_of_an_organisation_says_whom_it_addresses_and_what_it_wants(
    client: httpx.AsyncClient,
) -> None:
    [(_, card)] = (await page(client, "/o/river-valley")).all(data_testid="petition-card", data_petition_id=HARBOUR)
    assert "To: The Harbour Council and the Minister for Rivers" in card
    assert "The baths close in October. We ask that they stay open. All winter." in card
    assert "4,849 supporters" in card


async def test_each_petition_of_an_organisation_links_to_its_page(client: httpx.AsyncClient) -> None:
    shown = await page(client, "/o/river-valley")
    assert ({"href": f"/p/{HARBOUR}"}, "Open the harbour baths in winter") in shown.all("a")


async def test_the_organisations_page_says_what_cannot_be_signed_now(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(petition(BUS, closes_at=NOW - timedelta(days=1)))
    cards = (await page(client, "/o/river-valley")).all(data_testid="petition-card")
    assert [text.endswith("Closed") for _, text in cards] == [True, False]


async def test_a_petitions_page_shows_title_targets_text_and_count(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("h1")[0][1] == "Open the harbour baths in winter"
    assert ({"class": "to"}, "To: The Harbour Council and the Minister for Rivers") in shown.all("p")
    assert ({}, "The baths close in October.") in shown.all("p")
    assert ({}, "We ask that they stay open. All winter.") in shown.all("p")
    assert shown.text("petition-count") == "4,849"
    assert ({"href": "/o/river-valley"}, "River Valley Together") in shown.all("a")


async def test_progress_to_the_next_milestone_is_in_words_and_as_a_bar(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.text("next-milestone") == "151 more to reach 5,000"
    [(bar, text)] = shown.all("progress")
    assert (bar["max"], bar["value"], text) == ("5000", "4849", "4,849 of 5,000")


async def test_when_all_milestones_are_reached_the_page_says_so(client: httpx.AsyncClient) -> None:
    assert (await page(client, f"/p/{BUS}")).text("next-milestone") == "All milestones reached, the last one at 5,000"


async def test_a_petition_without_milestones_shows_no_progress(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.catalogue.apply(petition(HARBOUR, milestones=[]))
    assert (await page(client, f"/p/{HARBOUR}")).all("progress") == []


async def test_the_sign_form_posts_to_ingest(client: httpx.AsyncClient) -> None:
    [(form, _)] = (await page(client, f"/p/{HARBOUR}")).all(data_testid="sign-form")
    assert form["method"] == "post"
    assert form["action"] == f"http://sign.example:8001/v1/petitions/{HARBOUR}/signatures"
    assert "enctype" not in form, "browsers then send application/x-www-form-urlencoded"


async def test_every_field_of_the_sign_form_has_a_label(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.catalogue.apply(petition(HARBOUR, policy=Policy(require_consent=True)))
    shown = await page(client, f"/p/{HARBOUR}")
    fields = [attrs for tag in ("input", "select", "textarea") for attrs, _ in shown.all(tag)]
    assert {attrs["name"] for attrs in fields} == {*FORM_FIELDS, "consent"}
    assert {attrs["id"] for attrs in fields} == {attrs["for"] for attrs, _ in shown.all("label")}
    assert {attrs["name"] for attrs in fields if "required" in attrs} == {"email", "name", "country", "consent"}


async def test_consent_is_asked_only_where_the_petition_requires_it(client: httpx.AsyncClient) -> None:
    assert (await page(client, f"/p/{HARBOUR}")).all("input", name="consent") == []


async def test_a_signer_can_choose_every_country(client: httpx.AsyncClient) -> None:
    options = (await page(client, f"/p/{HARBOUR}")).all("option")
    assert {attrs["value"]: text for attrs, text in options} == {"": "Choose a country", **COUNTRIES}


async def test_a_petition_for_some_countries_offers_only_these_and_says_so(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(petition(HARBOUR, policy=Policy(countries=["NL", "BE"])))
    shown = await page(client, f"/p/{HARBOUR}")
    assert [attrs["value"] for attrs, _ in shown.all("option")] == ["", "BE", "NL"]
    assert "from these countries only" in shown.all("small", id="country-note")[0][1]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ({"closes_at": NOW - timedelta(days=1)}, "This petition is closed"),
        ({"opens_at": NOW + timedelta(days=1)}, "This petition is not open yet"),
    ],
)
async def test_a_petition_that_takes_no_signatures_says_so_instead_of_a_form(
    client: httpx.AsyncClient, read_side: ReadSide, times: dict[str, datetime], words: str
) -> None:
    read_side.catalogue.apply(petition(HARBOUR, **times))
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("form") == []
    assert shown.all("h2") == [({"id": "sign-heading"}, words)]
    assert shown.text("petition-count") == "4,849"


async def test_a_signer_is_thanked_with_the_count_and_a_way_back(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}/thanks")
    assert shown.all("h1")[0][1] == "Thank you"
    assert shown.text("petition-count") == "4,849"
    assert ({"class": "button", "href": f"/p/{HARBOUR}"}, "Back to the petition") in shown.all("a")


async def test_a_signer_who_must_confirm_is_told_so(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.catalogue.apply(petition(HARBOUR, policy=Policy(confirmation="required")))
    shown = await page(client, f"/p/{HARBOUR}/thanks")
    assert "once you have confirmed your e-mail address" in shown.all("p")[0][1]


@pytest.mark.parametrize("path", ["/o/nobody", "/p/nothing", "/p/nothing/thanks", "/somewhere", "/"])
async def test_an_address_that_leads_nowhere_has_a_page_that_says_so(client: httpx.AsyncClient, path: str) -> None:
    assert (await page(client, path, status=404)).all("h1") == [({}, "Not found")]


@pytest.mark.parametrize("path", ["/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks"])
async def test_while_redis_is_away_the_page_says_that_nothing_is_lost(
    client: httpx.AsyncClient, read_side: ReadSide, path: str
) -> None:
    read_side.reader.go_away()
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (503, "no-store")
    assert int(answer.headers["retry-after"]) > 0
    assert "No signature is lost" in answer.text
    assert read_side.metric("store_failures_total", cause="ConnectionError") == 1


ATTACK = "<script>alert('1')</script>\"' onload=x {{ 7*7 }}"


@pytest.mark.parametrize("path", ["/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks"])
async def test_what_a_petition_says_is_text_and_never_markup(
    client: httpx.AsyncClient, read_side: ReadSide, path: str
) -> None:
    plain = await page(client, path)
    read_side.catalogue.remove(BUS)
    read_side.catalogue.apply(
        petition(
            HARBOUR,
            title=ATTACK,
            text=f"{ATTACK}\n\n{ATTACK}",
            organisation=Organisation(slug="river-valley", name=ATTACK),
            targets=[Target(target_id="one", name=ATTACK, email="office@harbour.example")],
        )
    )
    attacked = await page(client, path)
    assert len(attacked.all("script")) == len(plain.all("script")) == 1
    assert not [attrs for _, attrs, _ in attacked.elements if "onload" in attrs]
    assert " ".join(ATTACK.split()) in " ".join(text for _, text in attacked.all())


@pytest.mark.parametrize("path", ["/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks", "/p/nothing"])
async def test_pages_run_only_their_own_script_and_load_nothing_from_elsewhere(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    shown = Page(answer.text)
    assert all(attrs["src"] and not text for attrs, text in shown.all("script"))
    loaded = [attrs.get("src") or attrs.get("href") for tag in ("script", "link") for attrs, _ in shown.all(tag)]
    assert all(address is not None and address.startswith("/static/") for address in loaded)
    assert not [
        attrs for _, attrs, _ in shown.elements if "style" in attrs or any(name.startswith("on") for name in attrs)
    ]


async def test_only_the_page_with_the_form_may_send_one_to_ingest(client: httpx.AsyncClient) -> None:
    form = (await client.get(f"/p/{HARBOUR}")).headers["content-security-policy"]
    assert "form-action 'self' http://sign.example:8001;" in form
    assert "form-action 'self';" in (await client.get("/o/river-valley")).headers["content-security-policy"]


async def test_pages_say_their_language_and_fit_a_phone(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("html")[0][0] == {"lang": "en"}
    assert shown.all("meta", name="viewport")[0][0]["content"] == "width=device-width, initial-scale=1"


async def test_files_are_kept_for_a_year_under_an_address_that_changes_with_them(client: httpx.AsyncClient) -> None:
    html = (await client.get(f"/p/{HARBOUR}")).text
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    assert len(addresses) == 3
    for address in addresses:
        answer = await client.get(address)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        other = await client.get(re.sub(r"v=\w+", "v=0123456789ab", address))
        assert other.headers["cache-control"] == "no-cache"


async def test_nothing_outside_the_folder_of_files_can_be_read(client: httpx.AsyncClient) -> None:
    for address in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/nothing.css"):
        assert (await client.get(address)).status_code == 404


async def test_a_paused_petition_says_why_in_place_of_the_form(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    sentence = "We count <names> by hand; signing is back on Monday."
    read_side.catalogue.apply(petition(HARBOUR, paused=Pause(sentence=sentence)))
    html = (await client.get(f"/p/{HARBOUR}")).text
    shown = Page(html)
    assert not shown.all("form")
    assert sentence in [text for _, text in shown.all("p")]
    assert "<names>" not in html
    organisation = Page((await client.get("/o/river-valley")).text)
    assert "Paused" in " ".join(text for _, text in organisation.all())


async def test_a_petition_that_has_closed_is_shown_as_closed_also_while_it_is_paused(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    closed = petition(HARBOUR, closes_at=NOW - timedelta(days=1), paused=Pause(sentence="Back on Monday."))
    read_side.catalogue.apply(closed)
    assert "Back on Monday" not in (await client.get(f"/p/{HARBOUR}")).text


async def test_an_unpublished_petition_is_on_no_page_and_in_no_sum(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.reader.put(tally(HARBOUR, 40), tally(BUS, 2))
    read_side.catalogue.apply(petition(HARBOUR, published=False))
    for path in (
        f"/p/{HARBOUR}",
        f"/p/{HARBOUR}/thanks",
        f"/v1/petitions/{HARBOUR}/tally",
        f"/v1/petitions/{HARBOUR}/tally/stream",
    ):
        assert (await client.get(path)).status_code == 404
    organisation = (await client.get("/v1/organisations/river-valley")).json()
    assert (organisation["supporters"], organisation["petitions_started"]) == (2, 1)
    assert HARBOUR not in (await client.get("/o/river-valley")).text
    read_side.catalogue.apply(petition(BUS, published=False))
    for path in ("/o/river-valley", "/v1/organisations/river-valley", "/v1/organisations/river-valley/stream"):
        assert (await client.get(path)).status_code == 404
