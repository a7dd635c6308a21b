"""The public pages, as a browser without JavaScript gets them."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import httpx
import pytest

from shared.contract.countries import COUNTRIES
from shared.contract.events import Organisation, Pause, Policy, Target
from tests.support.tally_read_fakes import BUS, HARBOUR, ReadSide, petition, tally

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
    assert ({"dir": "auto"}, "The baths close in October.") in shown.all("p")
    assert ({"dir": "auto"}, "We ask that they stay open. All winter.") in shown.all("p")
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


SIGNATURE = "019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d"


async def test_a_signer_is_promised_nothing_and_can_look_up_what_became_of_the_signature(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get(f"/p/{HARBOUR}/thanks?signature={SIGNATURE}")
    shown = Page(answer.text)
    assert "If it stands, it counts." in shown.all("p")[0][1]
    [(link, _)] = shown.all("a", data_testid="status")
    assert link["href"] == f"http://sign.example:8001/v1/signatures/{SIGNATURE}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "strict-origin", "the id goes nowhere else"


@pytest.mark.parametrize(
    "signature", ["", "../../evil", "javascript:alert(1)", SIGNATURE.replace("-", ""), f"{SIGNATURE}x"]
)
async def test_what_is_no_signature_cannot_be_looked_up(client: httpx.AsyncClient, signature: str) -> None:
    answer = await client.get(f"/p/{HARBOUR}/thanks", params={"signature": signature})
    assert not Page(answer.text).all("a", data_testid="status")
    assert "evil" not in answer.text
    assert "alert" not in answer.text


async def test_a_signer_who_must_confirm_is_told_so(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.catalogue.apply(petition(HARBOUR, policy=Policy(confirmation="required")))
    shown = await page(client, f"/p/{HARBOUR}/thanks")
    assert "once you have confirmed your e-mail address" in shown.all("p")[0][1]


@pytest.mark.parametrize("path", ["/o/nobody", "/p/nothing", "/p/nothing/thanks", "/somewhere", "/"])
async def test_an_address_that_leads_nowhere_has_a_page_that_says_so(client: httpx.AsyncClient, path: str) -> None:
    assert (await page(client, path, status=404)).all("h1") == [({}, "Not found")]


async def test_while_redis_is_away_a_petition_has_its_text_its_form_and_the_count_that_was_announced_last(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    before = await page(client, f"/p/{HARBOUR}")
    read_side.hub.publish(tally(HARBOUR, 4_849))
    read_side.reader.go_away()
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.text("petition-count") == "4,849"
    assert shown.text("age") == "As of 1 March 2026, 12:00 UTC. A newer count is not available for the moment."
    assert shown.all("form") == before.all("form")
    assert ({"dir": "auto"}, "The baths close in October.") in shown.all("p")
    assert not before.all(data_testid="age")
    assert read_side.metric("answers_total", what="petition_page", outcome="stale") == 1
    assert read_side.metric("store_failures_total", cause="ConnectionError") == 1


@pytest.mark.parametrize("path", [f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks"])
async def test_a_count_that_nobody_knows_is_said_to_be_not_available_and_not_to_be_0(
    client: httpx.AsyncClient, read_side: ReadSide, path: str
) -> None:
    read_side.reader.go_away()
    shown = await page(client, path)
    assert shown.text("petition-count") == "–"
    assert shown.text("age") == "The count is not available for the moment. No signature is lost."
    assert not shown.all("progress")


async def test_while_redis_is_away_an_organisation_shows_the_sum_of_what_was_announced(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.hub.publish(tally(BUS, 106_387))
    read_side.reader.go_away()
    shown = await page(client, "/o/river-valley")
    assert shown.text("supporters-total") == "106,387"
    assert shown.text("age").startswith("Supporters as of 1 March 2026, 12:00 UTC.")
    assert [text for _, text in shown.all(data_testid="petition-count")] == ["106,387", "–"]


async def test_an_organisation_of_which_no_count_is_known_says_so(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.reader.go_away()
    shown = await page(client, "/o/river-valley")
    assert shown.text("supporters-total") == "–"
    assert shown.text("age") == "The counts are not available for the moment. No signature is lost."
    assert shown.text("petitions-started") == "2"


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
    loaded = [
        attrs.get("src") or attrs.get("href")
        for tag in ("script", "link")
        for attrs, _ in shown.all(tag)
        if attrs.get("rel") != "canonical"
    ]
    assert all(address is not None and address.startswith("/static/") for address in loaded)
    assert not [
        attrs for _, attrs, _ in shown.elements if "style" in attrs or any(name.startswith("on") for name in attrs)
    ]


async def test_only_the_page_with_the_form_may_send_one_to_ingest(client: httpx.AsyncClient) -> None:
    form = (await client.get(f"/p/{HARBOUR}")).headers["content-security-policy"]
    assert "form-action 'self' http://sign.example:8001 http://pages.example;" in form, (
        "and where ingest sends it on to"
    )
    assert "form-action 'self';" in (await client.get("/o/river-valley")).headers["content-security-policy"]


async def test_pages_say_their_language_and_fit_a_phone(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("html")[0][0] == {"lang": "en"}
    assert shown.all("meta", name="viewport")[0][0]["content"] == "width=device-width, initial-scale=1"


ARABIC = petition(
    HARBOUR,
    language="ar",
    title="افتحوا المسبح في الشتاء (2026)!",
    text="يغلق المسبح في أكتوبر.",
    organisation=Organisation(slug="river-valley", name="جيران النهر"),
    targets=[
        Target(target_id="one", name="مجلس المدينة", email="office@harbour.example"),
        Target(target_id="two", name="Mayor of Town", email="office@harbour.example"),
    ],
)


async def test_what_a_petition_says_is_in_its_own_language_and_direction(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(ARABIC)
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("html")[0][0] == {"lang": "en"}, "the page's own words"
    assert shown.all("h1") == [({"lang": "ar", "dir": "auto"}, ARABIC.title)]
    assert shown.all("div", lang="ar")[0][1] == ARABIC.text
    assert shown.all("p", dir="auto")[0][1] == ARABIC.text
    isolated = [(attrs["lang"], text) for attrs, text in shown.all("bdi")]
    assert isolated == [("ar", "جيران النهر"), ("ar", "مجلس المدينة"), ("ar", "Mayor of Town")]


async def test_a_petition_whose_language_nobody_gave_is_not_taken_for_english(client: httpx.AsyncClient) -> None:
    assert (await page(client, f"/p/{HARBOUR}")).all("h1")[0][0] == {"lang": "", "dir": "auto"}


async def test_where_no_markup_can_be_the_direction_of_a_text_is_kept_apart(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.remove(BUS)
    read_side.catalogue.apply(ARABIC)
    assert (await page(client, "/o/river-valley")).all("title")[0][1] == "\u2068جيران النهر\u2069: petitions"
    thanks = await page(client, f"/p/{HARBOUR}/thanks")
    assert thanks.all("title")[0][1] == f"Thank you: \u2068{ARABIC.title}\u2069"


async def test_each_petition_of_an_organisation_is_in_its_own_language(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(ARABIC)
    read_side.catalogue.apply(petition(BUS, language="nl", changed_at=NOW))
    shown = await page(client, "/o/river-valley")
    assert [attrs["lang"] for attrs, _ in shown.all("h3")] == ["nl", "ar"]
    assert shown.all("h1")[0][0] == {"lang": "nl", "dir": "auto"}, "that of the petition whose name it has"


async def test_one_supporter_is_not_supporters_anywhere(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.catalogue.remove(BUS)
    read_side.reader.put(tally(HARBOUR, 1))
    for path in ("/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks"):
        text = (await client.get(path)).text
        assert "supporter" in text
        assert "supporters<" not in text
        assert "1 supporters" not in text
        assert "1 petitions" not in text


@pytest.mark.parametrize("accept", ["TEXT/HTML", "Text/Html;Q=0.9, */*;q=0.1", "text/*"])
@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", f"/p/{HARBOUR}", 405)])
async def test_who_asks_for_html_in_any_case_gets_a_page(
    client: httpx.AsyncClient, method: str, path: str, status: int, accept: str
) -> None:
    answer = await client.request(method, path, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    if status == 405:
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", ["/o/river-valley", f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks", "/robots.txt"])
async def test_the_head_of_a_page_can_be_asked_for(client: httpx.AsyncClient, path: str) -> None:
    head, whole = await client.head(path), await client.get(path)
    assert (head.status_code, head.headers) == (200, whole.headers)


@pytest.mark.parametrize("written", [f"{HARBOUR}.", f"{HARBOUR})", f"{HARBOUR.title()}", f"{HARBOUR}%E2%80%9D"])
async def test_an_address_that_was_copied_with_a_little_more_leads_there(
    client: httpx.AsyncClient, written: str
) -> None:
    answer = await client.get(f"/p/{written}", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, f"/p/{HARBOUR}")


async def test_a_page_names_the_one_address_by_which_it_is_to_be_known(client: httpx.AsyncClient) -> None:
    shown = await page(client, f"/p/{HARBOUR}")
    assert shown.all("link", rel="canonical")[0][0]["href"] == f"http://pages.example/p/{HARBOUR}"
    assert shown.all("meta", property="og:url")[0][0]["content"] == f"http://pages.example/p/{HARBOUR}"


async def test_a_browser_that_asks_for_an_icon_by_itself_finds_one(client: httpx.AsyncClient) -> None:
    answer = await client.get("/favicon.ico", follow_redirects=True)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")


async def test_search_engines_are_told_what_is_no_page_for_them(client: httpx.AsyncClient) -> None:
    assert (await client.get("/robots.txt")).text.splitlines() == [
        "User-agent: *",
        "Disallow: /v1/",
        "Disallow: /p/*/thanks",
    ]


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
