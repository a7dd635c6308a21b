"""Whatever is sent to ingest is answered by its rules: never with 500, never repeated, and what it accepts verify can read.

The whole of ingest's HTTP without a network: requests are given to the ASGI application as uvicorn would, and as it never
would. tests/contract sends bytes to running services.
"""

from __future__ import annotations

import json
from unittest.mock import patch
from urllib.parse import quote_from_bytes
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.contract.events import PetitionChanged
from shared.contract.identity import issued_here, new_signature_id
from shared.contract.topics import PETITIONS_CHANGED, SIGNATURES_SUBMITTED
from tests.support.hostile import as_json, broken_json, damaged, mutated, repeatable, scalars, texts, values
from tests.support.hostile_ingest import (
    AS_ADMIN,
    GOOD,
    JSON,
    KEY,
    NOT_IN_A_LINE,
    PAGES,
    SIGN,
    bodies,
    check_published,
    chunked,
    content_types,
    form,
    headers_sent,
    ingest_anew,
    multipart,
    submissions,
)
from tests.support.running_ingest import STATE
from tests.support.signing import PATH, PEPPER


@repeatable(200)
@given(data=st.data(), body=bodies, extra=headers_sent, odd_type=st.none() | st.none() | content_types)
async def test_whatever_is_sent_as_a_signature_is_answered_by_the_rules_and_read_by_verify(
    data: st.DataObject, body: tuple[bytes, bytes], extra: list[tuple[bytes, bytes]], odd_type: bytes | None
) -> None:
    ingest = ingest_anew()
    kind, content = body
    headers = [(b"content-type", kind if odd_type is None else odd_type), *extra]
    answer = await ingest.ask("POST", SIGN, headers, data.draw(chunked(content)))
    accepted = answer is not None and answer.status in (202, 303)
    assert check_published(ingest) == accepted


@pytest.mark.parametrize("charset", [b"undefined", b"idna", b"punycode", b"zip", b"unicode_escape", b"utf-7", b"\x00"])
async def test_a_form_in_an_encoding_that_is_none_of_text_is_refused_and_nothing_of_it_decoded(charset: bytes) -> None:
    ingest = ingest_anew()
    kind = (b"content-type", b"multipart/form-data; boundary=b; charset=" + charset)
    fields = {**GOOD, "name": "Zoë +AAo-\\ud800"}
    answer = await ingest.ask("POST", SIGN, [kind], [multipart(fields)])
    assert answer is not None
    assert answer.status == 400
    assert b"UTF-8" in answer.body
    assert check_published(ingest) == 0


async def test_the_requests_that_these_tests_begin_with_are_accepted() -> None:
    for kind, content in (
        (b"application/json", as_json(GOOD)),
        (b"application/x-www-form-urlencoded", form(GOOD)),
        (b"multipart/form-data; boundary=b", multipart(GOOD)),
    ):
        ingest = ingest_anew()
        answer = await ingest.ask("POST", SIGN, [(b"content-type", kind)], [content])
        assert answer is not None
        assert answer.status == 202
        assert check_published(ingest) == 1
        shown = await ingest.ask("POST", SIGN, [(b"content-type", kind), (b"accept", b"text/html")], [content])
        assert shown is not None
        signature_id = json.loads(ingest.producer.on(SIGNATURES_SUBMITTED.name)[-1].value or b"")["signature_id"]
        location = f"{PAGES}/p/{PATH}/thanks?signature={signature_id}".encode()
        assert (shown.status, shown.header(b"location")) == (303, location)


@pytest.mark.parametrize("announced", [b"32769", b"9" * 18, b"9" * 5_000, b"0" * 5_000 + b"32769"])
async def test_a_body_that_is_announced_too_large_is_refused_before_any_of_it_is_read(announced: bytes) -> None:
    ingest = ingest_anew()
    answer = await ingest.ask("POST", SIGN, [JSON, (b"content-length", announced)], [None])
    assert answer is not None
    assert answer.status == 413


paths = st.one_of(
    st.sampled_from(
        [
            b"/v1/petitions/signatures",
            b"/v1/petitions//signatures",
            b"/v1/petitions/../signatures",
            b"/v1/petitions/a/b/signatures",
            b"/v1/petitions/%2e%2e%2f/signatures",
            b"/v1/petitions/%00/signatures",
            b"/v1/petitions/%0d%0aLocation:%20x/signatures",
            b"/v1/petitions/%ff%fe/signatures",
            b"/v1/petitions/%ed%a0%80/signatures",
            b"/v1/petitions/" + b"a" * 8_000 + b"/signatures",
            b"/v1/petitions/" + PATH.encode() + b"%0a/signatures",
            b"/v1/petitions/" + PATH.encode().upper() + b"/signatures",
            b"//evil.example/v1/petitions/x/signatures",
            b"/v1/signatures/00000000-0000-0000-0000-000000000000",
            b"/v1/signatures/%00/confirm",
            b"/v1/signatures/{00000000000000000000000000000000}",
            b"/v1/signatures/urn:uuid:00000000-0000-0000-0000-000000000000",
            b"/v1/petitions/%7b%7b7*7%7d%7d",
        ]
    ),
    st.builds(
        lambda start, piece, end: start + quote_from_bytes(piece).encode() + end,
        st.sampled_from([b"/", b"/v1/", b"/v1/petitions/", b"/v1/signatures/"]),
        st.one_of(st.binary(max_size=20), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))),
        st.sampled_from([b"", b"/", b"/signatures", b"/signatures/batch", b"/confirm", b"/withdraw"]),
    ),
)


@repeatable(250)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"]),
    path=paths,
    query=st.one_of(st.binary(max_size=30), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))),
    credentials=st.sampled_from([None, AS_ADMIN, (b"x-api-key", KEY.encode())]),
    extra=headers_sent,
    body=bodies,
)
async def test_whatever_address_is_asked_the_answer_follows_the_rules(
    method: str,
    path: bytes,
    query: bytes,
    credentials: tuple[bytes, bytes] | None,
    extra: list[tuple[bytes, bytes]],
    body: tuple[bytes, bytes],
) -> None:
    ingest = ingest_anew()
    headers = [(b"content-type", body[0]), *extra, *([credentials] if credentials else [])]
    answer = await ingest.ask(method, path, headers, [body[1]], query)
    assert answer is not None
    assert answer.status not in (202, 303)
    assert ingest.producer.on(SIGNATURES_SUBMITTED.name) == []


lines = st.lists(
    st.one_of(
        submissions.map(as_json),
        st.builds(lambda key: as_json({**GOOD, "idempotency_key": key}), scalars),
        broken_json.map(lambda line: line.replace(b"\n", b"")),
        damaged(as_json(GOOD)),
        st.binary(max_size=40),
    ),
    min_size=1,
    max_size=4,
)


@repeatable(120)
@given(lines=lines, end=st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
async def test_whatever_the_lines_of_a_batch_are_each_gets_its_result_and_what_is_accepted_is_read(
    lines: list[bytes], end: bytes
) -> None:
    ingest = ingest_anew()
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/x-ndjson")]
    answer = await ingest.ask("POST", SIGN + b"/batch", headers, [end.join(lines)])
    assert answer is not None
    if answer.status == 207:
        results = json.loads(answer.body)["results"]
        assert {result["status"] for result in results} <= {202, 400, 413, 422}
        assert check_published(ingest) == sum(result["status"] == 202 for result in results)
    else:
        assert answer.status in (400, 413)
        assert check_published(ingest) == 0


@repeatable(150)
@given(state=mutated(STATE) | values, damage=st.none() | damaged(as_json(STATE)))
async def test_whatever_a_petition_is_said_to_be_what_is_accepted_can_be_read(
    state: object, damage: bytes | None
) -> None:
    ingest = ingest_anew()
    body = as_json(state) if damage is None else damage
    with patch("services.ingest.petitions.changes._SEEN_SECONDS", 0.0):  # not read back here
        # The administrator is shown what was accepted, and unknown fields by their names.
        answer = await ingest.ask("PUT", f"/v1/petitions/{PATH}".encode(), [AS_ADMIN, JSON], [body], repeats=True)
    assert answer is not None
    published = ingest.producer.on(PETITIONS_CHANGED.name)
    assert len(published) == (answer.status in (200, 201))
    for one in published:
        assert one.value is not None
        changed = PetitionChanged.model_validate_json(one.value)
        for line in (changed.title, changed.organisation.name, *(target.name for target in changed.targets)):
            assert line.strip()
            assert not NOT_IN_A_LINE & set(line)


# ---------------------------------------------------------------------------------------------------------------- tokens


@repeatable(200)
@given(token=st.one_of(st.binary(max_size=60), st.sampled_from([KEY.encode()[:-1], KEY.encode() + b"x", b"\0" * 20])))
@example(KEY.encode().upper())
async def test_only_the_very_credentials_open_a_call(token: bytes) -> None:
    ingest = ingest_anew()
    for header in ((b"x-api-key", token), (b"authorization", b"Bearer " + token)):
        answer = await ingest.ask("POST", SIGN + b"/batch", [header], [b""])
        assert answer is not None
        assert answer.status == 401


@repeatable(200)
@given(identity=st.one_of(st.uuids(), st.binary(min_size=16, max_size=16).map(lambda raw: UUID(bytes=raw))))
def test_an_id_that_was_not_issued_here_is_known_as_such(identity: UUID) -> None:
    assert not issued_here(PEPPER, identity)
    genuine = new_signature_id(PEPPER)
    assert issued_here(PEPPER, genuine)
    assert not issued_here(PEPPER, UUID(int=genuine.int ^ (identity.int or 1)))
    assert not issued_here(b"another pepper of tests", genuine)


@repeatable(150)
@given(key=st.one_of(st.binary(max_size=300), st.text(st.characters(max_codepoint=126), max_size=300).map(str.encode)))
async def test_an_idempotency_key_is_visible_ascii_or_refused(key: bytes) -> None:
    ingest = ingest_anew()
    answer = await ingest.ask("POST", SIGN, [JSON, (b"idempotency-key", key)], [as_json(GOOD)])
    assert answer is not None
    fine = 1 <= len(key) <= 255 and all(0x21 <= byte <= 0x7E for byte in key)
    assert answer.status == (202 if fine else 400)
