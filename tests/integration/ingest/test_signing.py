"""Signing over HTTP, one by one and in batches, on a real broker and a real PostgreSQL; and ingest's documents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from services.ingest.signing.sign import BODY_BYTES
from shared.contract.identity import signer_key
from tests.support.running_ingest import AS_PARTNER, PEPPER, Ingest, code

# ------------------------------------------------------------------------------------------------------------------ sign


async def test_an_accepted_signature_is_on_the_topic_when_the_answer_comes(ingest: Ingest, petition: str) -> None:
    answer = await ingest.sign(petition, email="Robin@Mail.Example", name="Robin", comment="Yes")
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "submitted"
    assert answer.headers["location"] == body["status_url"] == f"/v1/signatures/{body['signature_id']}"
    (record,) = await ingest.published(petition)
    headers = dict(record.headers)
    assert headers["ce_id"].decode() == body["signature_id"]
    assert headers["ce_type"] == b"groundswell.signature.sign.v1"
    assert headers["ce_source"] == b"/groundswell/ingest"
    assert headers["ce_subject"].decode() == petition
    assert record.key.decode() == signer_key(PEPPER.encode(), petition, "robin@mail.example").hex
    value = json.loads(record.value)
    assert (value["email"], value["country"], value["comment"]) == ("Robin@Mail.Example", "NL", "Yes")


async def test_a_retry_with_the_same_key_is_the_same_signature(ingest: Ingest, petition: str) -> None:
    first = await ingest.sign(petition, {"idempotency-key": "one"})
    again = await ingest.sign(petition, {"idempotency-key": "one"}, email="ROBIN@mail.example")
    other = await ingest.sign(petition, {"idempotency-key": "two"})
    assert first.json() == again.json()
    assert other.json()["signature_id"] != first.json()["signature_id"]
    records = await ingest.published(petition)
    assert len({record.key for record in records}) == len({record.partition for record in records}) == 1


async def test_who_has_signed_already_gets_the_same_kind_of_answer(ingest: Ingest, petition: str) -> None:
    first, second = await ingest.sign(petition), await ingest.sign(petition)
    assert first.status_code == second.status_code == 202
    assert first.json().keys() == second.json().keys()


async def test_a_browsers_form_goes_on_to_the_thank_you_page(ingest: Ingest, petition: str) -> None:
    answer = await ingest.http.post(
        f"/v1/petitions/{petition}/signatures",
        data={"email": "robin@mail.example", "name": "Robin", "country": "nl", "postcode": "", "consent": "on"},
        headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    )
    assert answer.status_code == 303
    (record,) = await ingest.published(petition)
    assert json.loads(record.value)["consent"] is True
    signature_id = json.loads(record.value)["signature_id"]
    assert answer.headers["location"] == f"https://pages.example/p/{petition}/thanks?signature={signature_id}"


BROWSER = {"accept": "TEXT/HTML,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browsers_form_that_is_refused_is_sent_again_to_the_petitions_page(
    ingest: Ingest, petition: str
) -> None:
    sent = {"email": "sam.example", "name": "Sam", "country": "n1", "comment": "swimmer"}
    answer = await ingest.http.post(f"/v1/petitions/{petition}/signatures", data=sent, headers=BROWSER)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    location = urlsplit(answer.headers["location"])
    assert location._replace(query="").geturl() == f"https://pages.example/p/{petition}"
    query = parse_qs(location.query)
    assert query["refused"] == ["invalid_fields"]
    assert {error.partition(":")[0] for error in query["e"]} == {"email", "country"}
    assert not [text for text in sent.values() if text.lower() in location.query.lower()], "nothing of the signer"
    assert await ingest.published(petition) == []


async def test_a_program_that_takes_pages_too_is_told_in_json_what_is_wrong_with_its_json(
    ingest: Ingest, petition: str
) -> None:
    answer = await ingest.http.post(f"/v1/petitions/{petition}/signatures", json={"email": "robin"}, headers=BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_a_form_for_a_petition_that_is_closed_or_unknown_goes_on_to_its_page_too(ingest: Ingest) -> None:
    await ingest.start_petition("form-closed", closes_at="2026-01-31T12:00:00Z")
    for petition, reason in (("form-closed", "petition_closed"), ("form-unknown", "petition_unknown")):
        answer = await ingest.http.post(f"/v1/petitions/{petition}/signatures", data={"name": "Robin"}, headers=BROWSER)
        assert answer.status_code == 307
        assert answer.headers["location"] == f"https://pages.example/p/{petition}?refused={reason}"


async def test_who_loads_the_forms_address_again_comes_to_the_petition(ingest: Ingest, petition: str) -> None:
    address = f"/v1/petitions/{petition}/signatures"
    answer = await ingest.http.get(address, headers=BROWSER)
    assert (answer.status_code, answer.headers["location"]) == (303, f"https://pages.example/p/{petition}")
    assert (await ingest.http.get(address)).status_code == 405


async def test_a_signer_is_shown_on_a_page_what_became_of_the_signature(ingest: Ingest, petition: str) -> None:
    accepted = (await ingest.sign(petition)).json()
    page = await ingest.http.get(accepted["status_url"], headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "accept" in page.headers["vary"].lower().replace(" ", "").split(","), "a cache keeps it apart from the JSON"
    assert "Your signature has arrived" in page.text, "verify does not run here"
    unknown = await ingest.http.get("/v1/signatures/019abc5e-8f00-7c3a-9d2b-5f6e7a8b9c0d", headers=BROWSER)
    assert (unknown.status_code, "We do not know this signature" in unknown.text) == (404, True)
    assert (await ingest.http.get(accepted["status_url"])).json()["status"] == "submitted"


async def test_a_petition_that_is_unknown_not_open_or_closed_takes_no_signatures(ingest: Ingest) -> None:
    now = datetime.now(UTC)
    await ingest.start_petition("opens-tomorrow", opens_at=(now + timedelta(days=1)).isoformat())
    await ingest.start_petition("closed-yesterday", closes_at=(now - timedelta(days=1)).isoformat())
    for petition_id, status, reason in (
        ("never-heard-of", 404, "petition_unknown"),
        ("NOT A SLUG", 404, "petition_unknown"),
        ("opens-tomorrow", 409, "petition_not_open_yet"),
        ("closed-yesterday", 410, "petition_closed"),
    ):
        answer = await ingest.sign(petition_id)
        assert (answer.status_code, code(answer)) == (status, reason)
    assert await ingest.published("closed-yesterday") == []


async def test_a_body_of_more_than_16_kib_is_refused_announced_or_not(ingest: Ingest, petition: str) -> None:
    address = f"/v1/petitions/{petition}/signatures"
    headers = {"content-type": "application/json"}
    large = b" " * (BODY_BYTES + 1)

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 1024):
            yield large[start : start + 1024]

    announced = await ingest.http.post(address, content=large, headers=headers)
    chunked = await ingest.http.post(address, content=in_chunks(), headers=headers)
    assert [code(announced), code(chunked)] == ["body_too_large"] * 2
    assert announced.status_code == chunked.status_code == 413


async def test_refusals_are_counted_by_reason_and_nothing_personal_is_counted_or_logged(
    ingest: Ingest, petition: str
) -> None:
    sample = 'groundswell_ingest_refused_total{reason="invalid_fields"}'
    before = await ingest.metric(sample)
    assert (await ingest.sign(petition, email="very.secret", name="Secret Name")).status_code == 422
    assert (await ingest.sign(petition, email="very.secret@mail.example", name="Secret Name")).status_code == 202
    assert await ingest.metric(sample) == before + 1
    for text in ((await ingest.http.get("/metrics")).text, ingest.process.log_file.read_text()):
        assert "ecret" not in text
        assert "robin@" not in text


async def test_scripts_of_a_named_origin_may_sign_from_the_browser_and_others_may_not(
    ingest: Ingest, petition: str
) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin, allowed in (("https://partner.example", "https://partner.example"), ("https://other.example", None)):
        preflight = await ingest.http.options(
            f"/v1/petitions/{petition}/signatures", headers={"origin": origin, **asked}
        )
        assert preflight.headers.get("access-control-allow-origin") == allowed
        signed = await ingest.sign(petition, {"origin": origin})
        assert signed.headers.get("access-control-allow-origin") == allowed


# ----------------------------------------------------------------------------------------------------------------- batch


async def test_every_line_of_a_batch_gets_its_result_and_valid_ones_are_accepted(ingest: Ingest, petition: str) -> None:
    lines = [
        json.dumps({"email": "a@mail.example", "name": "A", "country": "NL", "idempotency_key": "line-1"}),
        "{not json",
        "",
        json.dumps({"email": "b@mail.example", "name": "B", "country": "N1"}),
        json.dumps({"email": "c@mail.example", "name": "C", "country": "nl"}),
        json.dumps({"email": "d@mail.example", "name": "D" * 40_000, "country": "nl"}),
    ]
    address = f"/v1/petitions/{petition}/signatures/batch"
    headers = {**AS_PARTNER, "content-type": "application/x-ndjson"}
    answer = await ingest.http.post(address, content="\n".join(lines), headers=headers)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [(result["line"], result["status"]) for result in results] == [
        (1, 202),
        (2, 400),
        (4, 422),
        (5, 202),
        (6, 413),
    ]
    assert results[2]["problem"]["errors"][0]["field"] == "country"
    again = await ingest.http.post(address, content=lines[0], headers=headers)
    assert again.json()["results"][0]["signature_id"] == results[0]["signature_id"]
    assert len(await ingest.published(petition)) == 3


async def test_a_thousand_lines_are_a_batch_and_one_more_is_not(ingest: Ingest, petition: str) -> None:
    address = f"/v1/petitions/{petition}/signatures/batch"
    headers = {**AS_PARTNER, "content-type": "application/x-ndjson"}
    lines = [json.dumps({"email": f"s{n}@mail.example", "name": "S", "country": "NL"}) for n in range(1001)]
    refused = await ingest.http.post(address, content="\n".join(lines), headers=headers)
    assert (refused.status_code, code(refused)) == (413, "too_many_lines")
    accepted = await ingest.http.post(address, content="\n".join(lines[:1000]), headers=headers)
    assert {result["status"] for result in accepted.json()["results"]} == {202}
    assert len(await ingest.published(petition)) == 1000


async def test_a_batch_as_a_whole_is_refused_without_a_key_or_when_it_is_not_ndjson(
    ingest: Ingest, petition: str
) -> None:
    address = f"/v1/petitions/{petition}/signatures/batch"
    ndjson = {"content-type": "application/x-ndjson"}
    for headers, content, status in (
        (ndjson, "{}", 401),
        ({**ndjson, "x-api-key": "wrong"}, "{}", 401),
        ({**AS_PARTNER, "content-type": "application/json"}, "{}", 415),
        ({**AS_PARTNER, **ndjson}, " \n", 400),
    ):
        answer = await ingest.http.post(address, content=content, headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer")
    unknown = await ingest.http.post(
        "/v1/petitions/never-heard-of/signatures/batch", content="{}", headers={**AS_PARTNER, **ndjson}
    )
    assert code(unknown) == "petition_unknown"


# ----------------------------------------------------------------------------------------------------------- the service


async def test_its_documents_say_what_it_takes_and_what_it_writes(ingest: Ingest) -> None:
    openapi = (await ingest.http.get("/openapi.json")).json()
    assert openapi["openapi"].startswith("3.1")
    asyncapi = (await ingest.http.get("/docs/asyncapi.json")).json()
    sent = {
        asyncapi["channels"][operation["channel"]["$ref"].rpartition("/")[2]]["address"]
        for operation in asyncapi["operations"].values()
        if operation["action"] == "send"
    }
    assert sent == {"signatures.submitted.v1", "petitions.changed.v1"}


async def test_other_methods_and_other_addresses_are_refused_as_problems(ingest: Ingest, petition: str) -> None:
    address = f"/v1/petitions/{petition}/signatures"
    answer = await ingest.http.get(address)
    assert (answer.status_code, code(answer), answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert code(await ingest.http.get("/v1/nothing")) == "not_found"
