"""A sign form that ingest refused, shown again on the petition's page."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.ingest.openapi.document import document
from services.ingest.problems import KINDS
from services.tally.reading.refusals import FIELDS, REFUSALS
from services.tally.reading.typed import FORM_BYTES
from shared.contract.bounds import MOST_CHARACTERS
from shared.contract.events import Policy
from shared.contract.form_errors import FORM_ERRORS
from shared.web.problems import PROBLEM_JSON
from tests.support.tally_read_fakes import HARBOUR, ReadSide, petition, tally
from tests.unit.services.tally.reading.test_pages import Page

TYPED = {
    "name": 'Robin "<b>" Example',
    "email": "robin@nowhere",
    "country": "NL",
    "postcode": "1011 AB",
    "comment": "\nI swim.\r\n\r\n</textarea><script>x</script> زيت & more",
    "consent": "true",
}
OTHER_CLIENTS = {
    *("credentials_ambiguous", "credentials_wrong", "too_many_wrong_credentials"),
    *("malformed_request", "idempotency_key_invalid"),
}
"""What a form of a page cannot meet: it has no credentials and no keys, and browsers write requests well."""

SIGNING = document()["paths"]["/v1/petitions/{petition_id}/signatures"]["post"]["responses"]
REASONS = {
    reason
    for answer in SIGNING.values()
    for reason in answer.get("content", {}).get(PROBLEM_JSON, {}).get("examples", {})
}
"""Every problem that a signature can get, from docs/openapi.json."""


@pytest.fixture
def read_side() -> ReadSide:
    side = ReadSide()
    side.catalogue.apply(petition(HARBOUR, policy=Policy(require_consent=True)))
    side.reader.put(tally(HARBOUR, 4_849))
    return side


@pytest.fixture
async def client(read_side: ReadSide) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=read_side.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example") as client:
        yield client


async def refused(client: httpx.AsyncClient, query: str, **sent: Any) -> httpx.Response:
    return await client.post(f"/p/{HARBOUR}?{query}", **(sent or {"data": TYPED}))


WRONG = "refused=invalid_fields&e=email:address_incomplete&e=name:blank"


@pytest.mark.parametrize("multipart", [False, True])
async def test_what_was_typed_is_still_in_its_fields(client: httpx.AsyncClient, multipart: bool) -> None:
    parts: dict[str, Any] = {"files": {name: (None, text) for name, text in TYPED.items()}} if multipart else {}
    answer = await refused(client, WRONG, **parts)
    shown = Page(answer.text)
    assert answer.status_code == 422
    assert answer.headers["cache-control"] == "no-store"
    values = {attrs["name"]: attrs.get("value") for attrs, _ in shown.all("input")}
    assert values == {name: TYPED[name] for name in ("name", "email", "postcode", "consent")}
    assert "checked" in shown.all("input", name="consent")[0][0]
    [(chosen, _)] = [one for one in shown.all("option") if "selected" in one[0]]
    assert chosen["value"] == "NL"
    [comment] = ["".join(text) for tag, _, text in shown.elements if tag == "textarea"]
    assert comment == "\n" + TYPED["comment"], "a browser leaves the first line break out"
    assert not [attrs for attrs, _ in shown.all("script") if not attrs.get("src")]


async def test_each_error_stands_at_its_field_and_the_first_wrong_field_has_the_focus(
    client: httpx.AsyncClient,
) -> None:
    shown = Page((await refused(client, WRONG)).text)
    assert shown.all("title")[0][1] == "Error: Open the harbour baths in winter"
    for name in FIELDS:
        [(attrs, _)] = shown.all(id=name)
        assert ("aria-invalid" in attrs) == (name in ("name", "email"))
        assert ("autofocus" in attrs) == (name == "name"), "the form's order counts, not the address'"
    [(email, _)] = shown.all(id="email")
    assert (email["aria-describedby"] or "").split() == ["email-error", "email-note"]
    [(_, sentence)] = shown.all(id="email-error")
    assert sentence == f"Error: {FORM_ERRORS['address_incomplete']}"
    [(summary, _)] = shown.all(data_testid="refused")
    assert summary["role"] == "alert"
    links = [(attrs["href"], text) for attrs, text in shown.all("a") if (attrs["href"] or "").startswith("#")]
    assert links[-2:] == [("#name", "Name"), ("#email", "E-mail address")]


async def test_the_page_is_the_petitions_own(client: httpx.AsyncClient) -> None:
    usual, shown = Page((await client.get(f"/p/{HARBOUR}")).text), Page((await refused(client, WRONG)).text)
    for tag in ("h1", "dl", "progress", "link", "script", "form"):
        assert [attrs for attrs, _ in shown.all(tag)] == [attrs for attrs, _ in usual.all(tag)]
    assert shown.text("petition-count") == usual.text("petition-count") == "4,849"


@pytest.mark.parametrize("reason", sorted(REASONS - OTHER_CLIENTS))
async def test_every_way_to_be_refused_keeps_its_status_and_says_what_to_do(
    client: httpx.AsyncClient, read_side: ReadSide, reason: str
) -> None:
    assert REFUSALS[reason].status == KINDS[reason].status
    assert bool(REFUSALS[reason].retry_after) >= bool(KINDS[reason].retry_after)
    answer = await refused(client, f"refused={reason}")
    shown = Page(answer.text)
    assert (answer.status_code, answer.headers["cache-control"]) == (KINDS[reason].status, "no-store")
    assert REFUSALS[reason].heading in shown.text("refused")
    [(summary, _)] = shown.all(data_testid="refused")
    assert "autofocus" in summary, "no field is wrong: the message is what comes first"
    assert read_side.metric("refused_forms_total", reason=reason) == 1
    if REFUSALS[reason].comes_back:
        assert shown.all("input", name="name")[0][0]["value"] == TYPED["name"]
    else:
        assert not shown.all("form")
        assert "I swim." in shown.text("typed"), "for the signer to keep"


async def test_who_has_to_wait_is_told_how_long(client: httpx.AsyncClient) -> None:
    answer = await refused(client, "refused=too_many_requests&wait=17")
    assert answer.headers["retry-after"] == "17"
    assert "Please wait 17 seconds" in Page(answer.text).text("refused")
    assert "Please wait 1 second," in (await refused(client, "refused=overloaded&wait=1")).text


@pytest.mark.parametrize("wait", ["-1", "1e9", "99999999999", "½", "<script>", "0", ""])
async def test_a_wait_that_ingest_would_not_ask_for_is_not_passed_on(client: httpx.AsyncClient, wait: str) -> None:
    answer = await client.post(f"/p/{HARBOUR}", params={"refused": "overloaded", "wait": wait}, data=TYPED)
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "query",
    [
        "refused=evilword&e=email:evilword",
        "refused=evilword",
        "refused=invalid_fields&e=evilword:blank&e=evilword&e=:",
        "refused=<script>evilword&refused=evilword",
        "e=evilword&wait=evilword&evilword=1",
        "",
    ],
)
async def test_nothing_that_stands_in_the_address_is_shown(
    client: httpx.AsyncClient, read_side: ReadSide, query: str
) -> None:
    answer = await refused(client, query)
    assert answer.status_code in (400, 422)
    assert "evilword" not in answer.text
    assert Page(answer.text).text("refused")
    reasons = {"other", "invalid_fields"}
    assert sum(read_side.metric("refused_forms_total", reason=reason) for reason in reasons) == 1


async def test_a_code_of_a_newer_ingest_still_points_at_its_field(client: httpx.AsyncClient) -> None:
    shown = Page((await refused(client, "refused=invalid_fields&e=email:from_the_future")).text)
    assert shown.all(id="email-error")[0][1] == f"Error: {FORM_ERRORS['invalid']}"


async def test_a_field_that_this_form_does_not_have_is_not_pointed_at(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(petition(HARBOUR))
    shown = Page((await refused(client, "refused=invalid_fields&e=consent:consent_missing")).text)
    assert not [attrs for attrs, _ in shown.all("a") if attrs["href"] == "#consent"]


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"name=" + b"a" * FORM_BYTES, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": b"name=%CE%EB%FF", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": b"name=a", "headers": {"content-type": "application/x-www-form-urlencoded; charset=zip"}},
        {
            "content": b"&".join(b"a=1" for _ in range(99)),
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        },
        {"content": b"name=Robin", "headers": {"content-type": "text/plain"}},
        {"content": b"name=Robin"},
        {"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {
            "content": b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\n\xce\xeb\r\n--b--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        {"files": {"name": ("a.txt", b"a file")}},
    ],
    ids=["large", "not UTF-8", "charset", "fields", "text", "no type", "cut", "no boundary", "parts not UTF-8", "file"],
)
async def test_a_form_that_cannot_be_shown_again_is_said_to_be_in_the_browsers_history(
    client: httpx.AsyncClient, sent: dict[str, Any]
) -> None:
    answer = await refused(client, "refused=malformed_body", **sent)
    assert answer.status_code == 400
    assert "Back button keeps it" in Page(answer.text).text("refused")
    assert Page(answer.text).all("input", name="name")[0][0]["value"] == ""


@pytest.mark.parametrize("said_in", ["its type", "a field", "its part"])
async def test_a_form_in_another_charset_is_shown_as_it_was_typed(client: httpx.AsyncClient, said_in: str) -> None:
    kind, name = "application/x-www-form-urlencoded", "Олена".encode("cp1251")
    content = b"name=" + b"".join(b"%%%02X" % byte for byte in name)
    if said_in == "its type":
        kind += "; charset=windows-1251"
    elif said_in == "a field":
        content += b"&_charset_=windows-1251"
    else:
        kind = "multipart/form-data; boundary=b"
        part = b'content-disposition: form-data; name="name"\r\ncontent-type: text/plain; charset=windows-1251'
        content = b"--b\r\n" + part + b"\r\n\r\n" + name + b"\r\n--b--\r\n"
    answer = await refused(client, WRONG, content=content, headers={"content-type": kind})
    assert Page(answer.text).all("input", name="name")[0][0]["value"] == "Олена"


async def test_the_form_takes_as_many_characters_as_ingest_does(client: httpx.AsyncClient) -> None:
    shown = Page((await client.get(f"/p/{HARBOUR}")).text)
    bounds = {attrs["id"]: int(attrs["maxlength"]) for attrs, _ in shown.all() if attrs.get("maxlength")}
    assert bounds == {name: MOST_CHARACTERS[name] for name in ("name", "email", "postcode", "comment")}


async def test_a_form_that_ingest_found_too_large_is_shown_to_be_shortened(client: httpx.AsyncClient) -> None:
    answer = await refused(client, "refused=body_too_large", data={**TYPED, "comment": "a" * 50_000})
    assert answer.status_code == 413
    assert "a" * 50_000 in answer.text


async def test_a_form_for_a_petition_that_closed_meanwhile_says_since_when(
    client: httpx.AsyncClient, read_side: ReadSide
) -> None:
    read_side.catalogue.apply(petition(HARBOUR, closes_at=datetime.now(UTC) - timedelta(hours=1)))
    shown = Page((await refused(client, "refused=petition_closed")).text)
    assert "This petition has closed." in shown.text("refused")
    assert "This petition is closed" in [text for _, text in shown.all("h2")]
    assert not shown.all("form")


@pytest.mark.parametrize("reason", ["petition_unknown", "invalid_fields"])
async def test_a_form_for_an_unknown_petition_ends_on_a_page_of_this_site(
    client: httpx.AsyncClient, reason: str
) -> None:
    answer = await client.post(f"/p/nothing?refused={reason}", data=TYPED)
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")
    assert [text for _, text in Page(answer.text).all("h1")] == ["Not found"]


async def test_the_form_is_shown_while_redis_is_away(client: httpx.AsyncClient, read_side: ReadSide) -> None:
    read_side.reader.go_away()
    answer = await refused(client, WRONG)
    assert answer.status_code == 422
    assert Page(answer.text).all("input", name="name")[0][0]["value"] == TYPED["name"]


async def test_loading_the_address_of_a_refusal_again_shows_the_petition_as_ever(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/p/{HARBOUR}?{WRONG}")
    assert answer.status_code == 200
    assert answer.text == (await client.get(f"/p/{HARBOUR}")).text
