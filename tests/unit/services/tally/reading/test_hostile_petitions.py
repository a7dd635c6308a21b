"""Whatever a petition, its organisation and its targets are called: on pages and in mails it is text, and nothing else."""

from __future__ import annotations

import email
import email.policy
import re
from collections import Counter
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notify.deliveries import Claim, deliveries_for
from services.notify.mail.letter import MailWriter
from shared.contract.events import MilestoneReached, Organisation, PetitionChanged, Target
from tests.support.hostile import repeatable, texts
from tests.support.tally_read_fakes import CHANGED, HARBOUR, ReadSide, petition, tally

WRITER = MailWriter(mail_from="Groundswell <petitions@groundswell.example>", pages_url="https://pages.example")
TURNS_WRITING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
names = texts.map(lambda text: text[:200] or "x")


class Skeleton(HTMLParser):
    """What of a page is not text: its tags with the names of their attributes, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, ...]] = Counter()
        self.addresses: set[str | None] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Texts have any number of paragraphs.
        if tag != "p":
            self.tags[(tag, *sorted(name for name, _ in attrs))] += 1
        self.addresses |= {value for name, value in attrs if name in ("href", "src", "action", "data-live")}

    def handle_comment(self, data: str) -> None:
        self.tags["comment",] += 1

    def handle_decl(self, decl: str) -> None:
        self.tags["declaration", decl] += 1

    def handle_pi(self, data: str) -> None:
        self.tags["instruction",] += 1


def named(title: str, organisation: str, target: str, text: str) -> PetitionChanged:
    return petition(
        title=title,
        text=text,
        organisation=Organisation(slug="river-valley", name=organisation),
        targets=[Target(target_id="council", name=target, email="office@harbour.example")],
    )


PLAIN = named("Open the baths", "River Valley", "The Council", "They close.")


async def pages(of: PetitionChanged) -> dict[str, httpx.Response]:
    """Every page about a petition."""
    side = ReadSide()
    side.catalogue.apply(of)
    side.reader.put(tally(HARBOUR, 10))
    paths = (f"/p/{HARBOUR}", f"/p/{HARBOUR}/thanks", "/o/river-valley")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(side.app()), base_url="http://pages.example") as client:
        return {path: await client.get(path) for path in paths}


@repeatable(60)
@given(title=names, organisation=names, target=names, text=texts.map(lambda text: text or "x"))
async def test_pages_are_made_of_the_same_parts_whatever_a_petition_is_called(
    title: str, organisation: str, target: str, text: str
) -> None:
    plain, hostile = await pages(PLAIN), await pages(named(title, organisation, target, text))
    for path, page in hostile.items():
        expected, found = Skeleton(plain[path].text), Skeleton(page.text)
        assert found.tags == expected.tags
        assert found.addresses == expected.addresses
        assert page.headers == {**plain[path].headers, "content-length": page.headers["content-length"]}


async def test_pages_may_load_only_what_is_ours_and_be_framed_by_nobody() -> None:
    for page in (await pages(PLAIN)).values():
        rules = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
        assert (rules["default-src"], rules["script-src"]) == ("'none'", "'self'")
        assert (rules["base-uri"], rules["frame-ancestors"]) == ("'none'", "'none'")
        assert rules["form-action"] in ("'self'", "'self' http://sign.example:8001 http://pages.example")
        assert not any("unsafe" in rule for rule in rules.values())
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "referrer-policy" in page.headers
        assert "set-cookie" not in page.headers


def mail_about(of: PetitionChanged) -> Any:
    reached = MilestoneReached(petition_id=HARBOUR, threshold=1000, count=1003, revision=1003, reached_at=CHANGED)
    (delivery,) = deliveries_for(reached, of)
    claim = Claim(
        delivery=delivery, folded=(), chosen_at=CHANGED, attempts=0, deferred_for=timedelta(), taken_over=False
    )
    return email.message_from_bytes(WRITER.write(claim).content, policy=email.policy.default)


@repeatable(100)
@given(title=names, organisation=names, target=names)
def test_mails_have_the_same_headers_and_parts_whatever_a_petition_is_called(
    title: str, organisation: str, target: str
) -> None:
    plain, hostile = mail_about(PLAIN), mail_about(named(title, organisation, target, "x"))
    assert hostile.keys() == plain.keys()
    assert [address.addr_spec for address in hostile["To"].addresses] == ["office@harbour.example"]
    for name in ("From", "Message-ID", "Date", "Content-Type", "X-Groundswell-Petition"):
        assert hostile[name] == plain[name]
    html = [Skeleton(mail.get_body(("html",)).get_content()) for mail in (hostile, plain)]
    assert html[0].tags == html[1].tags
    assert html[0].addresses == html[1].addresses
    said, subject = hostile.get_body(("plain",)).get_content(), str(hostile["Subject"])
    # A petition's title is between our own isolates, so it does not change the direction of the text around it.
    assert not TURNS_WRITING & set(re.sub("\u2068([^\u2068\u2069]*)\u2069", r"\1", said + subject))
    assert not {character for character in said.replace("\r\n", "") + subject if ord(character) < 32}


@pytest.mark.parametrize(
    ("path", "moved"),
    [
        ("/p/x/", "/p/x"),
        ("/o/river-valley/", "/o/river-valley"),
        (f"/p/{HARBOUR}/?via=mail", f"/p/{HARBOUR}?via=mail"),
        (f"/p/{HARBOUR}/thanks/", f"/p/{HARBOUR}/thanks"),
        ("/p/evil.example%0d%0aset-cookie:a/", "/p/evil.example%0D%0Aset-cookie%3Aa"),
        (f"/p/{HARBOUR.upper()}.", f"/p/{HARBOUR}"),
        ("/static", None),
        ("//evil.example/p/x", None),
        ("/p//evil.example/", None),
        ("/p/%2f%2fevil.example/", None),
        ("/p/..%2f..%2f/evil.example/", None),
        ("/p/x//", None),
    ],
)
async def test_no_address_redirects_to_the_host_that_a_request_names(path: str, moved: str | None) -> None:
    side = ReadSide()
    side.catalogue.apply(PLAIN)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(side.app()), base_url="http://pages.example") as client:
        answer = await client.get(f"http://pages.example{path}", headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers.get("location")) == (404 if moved is None else 308, moved)
    assert "evil" not in answer.text
    assert "set-cookie" not in answer.headers


@repeatable(80)
@given(value=st.one_of(st.text(st.characters(max_codepoint=255)), st.integers().map(str), st.just("9" * 5_000)))
async def test_last_event_id_is_a_version_or_nothing(value: str) -> None:
    from starlette.requests import Request

    from services.tally.reading.routes import _last_event_id

    scope = {"type": "http", "headers": [(b"last-event-id", value.encode("latin-1"))]}
    known = _last_event_id(Request(scope))
    if known != (0, -1):
        assert value.isascii()
        assert tuple(int(part) for part in value.split("-")) in (known, known[1:])
        assert max(known) < 10**15
