"""ingest over HTTP, on a real broker and a real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from deploy.local.parts.kafka import KafkaBroker
from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate
from services.ingest.signing.sign import BODY_BYTES
from shared.contract.events import ConfirmCommand
from shared.contract.identity import command_id, signer_key
from shared.contract.mailboxes.providers import LATEST
from shared.contract.topics import apply_topics
from tests.running_ingest import AS_ADMIN, AS_PARTNER, PEPPER, STATE, Ingest, code, running_ingest


@pytest.fixture(scope="module")
async def postgres_url(postgres: Postgres) -> str:
    url = await postgres.create_database("ingest_tests")
    await migrate(url)
    return url


@pytest.fixture(scope="module")
async def ingest(
    kafka: KafkaBroker, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ingest]:
    await apply_topics(kafka.bootstrap_servers)
    log_dir = tmp_path_factory.mktemp("ingest")
    async with running_ingest(
        kafka, postgres_url=postgres_url, log_dir=log_dir, INGEST_CORS_ORIGINS="https://partner.example"
    ) as running:
        yield running


@pytest.fixture
async def petition(ingest: Ingest) -> str:
    """A petition of the test's own."""
    petition_id = f"petition-{uuid4().hex[:12]}"
    await ingest.start_petition(petition_id)
    return petition_id


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


# ---------------------------------------------------------------------------------------------------- status and commands


async def signed(ingest: Ingest, petition_id: str, state: str | None, reason: str | None = None) -> str:
    """A signature of a signer of its own, decided as `state`."""
    email = f"signer-{uuid4().hex}@mail.example"
    signature_id = (await ingest.sign(petition_id, email=email)).json()["signature_id"]
    if state is not None:
        signer = signer_key(PEPPER.encode(), petition_id, email)
        await ingest.decide(signature_id, state=state, petition_id=petition_id, signer=signer, reason=reason)
    return signature_id


async def test_a_status_is_submitted_until_decided_and_unknown_only_if_it_was_never_issued(
    ingest: Ingest, petition: str
) -> None:
    undecided = await signed(ingest, petition, None)
    rejected = await signed(ingest, petition, "rejected", "country_unknown")
    on_its_way = (await ingest.http.get(f"/v1/signatures/{undecided}")).json()
    assert (on_its_way["signature_id"], on_its_way["status"], on_its_way["petition_id"]) == (
        undecided,
        "submitted",
        None,
    )
    decided = await ingest.http.get(f"/v1/signatures/{rejected}")
    assert decided.headers["cache-control"] == "no-store"
    body = decided.json()
    assert (body["status"], body["reason"], body["petition_id"]) == ("rejected", "country_unknown", petition)
    assert body["decided_at"] is not None
    for never in (str(uuid4()), "not-an-id", undecided.replace("-", "")):
        answer = await ingest.http.get(f"/v1/signatures/{never}")
        assert (answer.status_code, code(answer)) == (404, "signature_unknown")


async def test_only_with_credentials_can_a_duplicate_be_told_from_a_first_signature(
    ingest: Ingest, petition: str
) -> None:
    duplicate = await signed(ingest, petition, "duplicate", "already_signed")
    stranger = (await ingest.http.get(f"/v1/signatures/{duplicate}")).json()
    partner = (await ingest.http.get(f"/v1/signatures/{duplicate}", headers=AS_PARTNER)).json()
    assert (stranger["status"], stranger["reason"]) == ("verified", None)
    assert (partner["status"], partner["reason"]) == ("duplicate", "already_signed")


async def test_commands_meet_the_signature_in_its_lane_and_a_repeated_one_is_the_same(
    ingest: Ingest, petition: str
) -> None:
    signature = await signed(ingest, petition, "pending")
    for command, headers in (
        ("confirm", AS_PARTNER),
        ("confirm", AS_PARTNER),
        ("withdraw", AS_PARTNER),
        ("invalidate", AS_ADMIN),
    ):
        answer = await ingest.http.post(f"/v1/signatures/{signature}/{command}", headers=headers)
        assert answer.status_code == 202
        assert answer.json() == {"signature_id": signature, "status_url": f"/v1/signatures/{signature}"}
    records = await ingest.published(petition)
    assert len({(record.key, record.partition) for record in records}) == 1
    types = [dict(record.headers)["ce_type"].decode().split(".")[2] for record in records]
    assert types == ["sign", "confirm", "confirm", "withdraw", "invalidate"]
    ids = [dict(record.headers)["ce_id"] for record in records]
    assert ids[1] == ids[2]
    assert len(set(ids)) == 4


async def asked(ingest: Ingest, signature_id: str, command: str) -> tuple[int, str | None]:
    """The status of a command's answer and, if it is refused, the problem's code."""
    answer = await ingest.http.post(f"/v1/signatures/{signature_id}/{command}", headers=AS_ADMIN)
    return answer.status_code, None if answer.status_code == 202 else code(answer)


NO_EFFECT = (409, "command_without_effect")
TAKEN = (202, None)


async def test_a_command_that_can_have_no_effect_says_so_and_is_not_published(ingest: Ingest, petition: str) -> None:
    for state, confirm, withdraw, invalidate in (
        ("pending", TAKEN, TAKEN, TAKEN),
        ("verified", NO_EFFECT, TAKEN, TAKEN),
        ("withdrawn", NO_EFFECT, TAKEN, NO_EFFECT),  # the same command again is no error
        ("invalidated", NO_EFFECT, NO_EFFECT, TAKEN),
        ("rejected", NO_EFFECT, NO_EFFECT, NO_EFFECT),
        ("duplicate", NO_EFFECT, NO_EFFECT, NO_EFFECT),  # of one that is not known
    ):
        before = len(await ingest.published(petition))
        signature = await signed(ingest, petition, state)
        found = [await asked(ingest, signature, command) for command in ("confirm", "withdraw", "invalidate")]
        assert found == [confirm, withdraw, invalidate], state
        assert len(await ingest.published(petition)) == before + 1 + found.count(TAKEN)
        erased = await ingest.http.post(f"/v1/signatures/{signature}/erase", json=WORDS, headers=AS_ADMIN)
        assert erased.status_code == 202, "whatever its state, its signer can be erased"
    sample = 'groundswell_ingest_refused_total{reason="command_without_effect"}'
    assert await ingest.metric(sample) >= 10


async def test_a_confirmation_that_was_carried_out_is_the_same_one_again_and_another_one_is_none(
    ingest: Ingest, petition: str
) -> None:
    email = f"signer-{uuid4().hex}@mail.example"
    first, second = [(await ingest.sign(petition, email=email)).json()["signature_id"] for _ in range(2)]
    signer = signer_key(PEPPER.encode(), petition, email)
    confirmation = command_id(UUID(first), ConfirmCommand.TYPE)
    await ingest.decide(first, state="verified", petition_id=petition, signer=signer, counted_by=confirmation)
    await ingest.decide(
        second,
        state="duplicate",
        petition_id=petition,
        signer=signer,
        reason="already_signed",
        duplicate_of=UUID(first),
    )
    assert await asked(ingest, first, "confirm") == TAKEN
    assert await asked(ingest, second, "confirm") == NO_EFFECT


async def test_a_command_about_a_duplicate_is_answered_as_the_signature_that_it_is_a_duplicate_of_stands(
    ingest: Ingest, petition: str
) -> None:
    for state, confirm, withdraw in (
        ("pending", TAKEN, TAKEN),
        ("verified", NO_EFFECT, TAKEN),
        ("withdrawn", NO_EFFECT, TAKEN),
        ("invalidated", NO_EFFECT, NO_EFFECT),
    ):
        email = f"signer-{uuid4().hex}@mail.example"
        first, second = [(await ingest.sign(petition, email=email)).json()["signature_id"] for _ in range(2)]
        signer = signer_key(PEPPER.encode(), petition, email)
        await ingest.decide(first, state=state, petition_id=petition, signer=signer)
        await ingest.decide(
            second, state="duplicate", petition_id=petition, signer=signer, reason="already_signed",
            duplicate_of=UUID(first),
        )  # fmt: skip
        assert await asked(ingest, second, "confirm") == confirm, state
        answer = await ingest.http.post(f"/v1/signatures/{second}/withdraw", headers=AS_PARTNER)
        assert (answer.status_code == 202) == (withdraw == TAKEN), state
        assert first not in answer.text, "whose id it is, is for those who have it"
        assert {record.key.decode() for record in await ingest.published(petition)} >= {signer.hex}


async def test_a_command_needs_the_right_credentials_and_a_decided_signature(ingest: Ingest, petition: str) -> None:
    signature, undecided = await signed(ingest, petition, "verified"), await signed(ingest, petition, None)
    for target, command, headers, status in (
        (signature, "withdraw", {}, 401),
        (signature, "invalidate", {}, 401),
        (signature, "invalidate", AS_PARTNER, 403),
        (signature, "celebrate", AS_ADMIN, 404),
        (str(uuid4()), "withdraw", AS_PARTNER, 404),
        (undecided, "withdraw", AS_PARTNER, 409),
    ):
        answer = await ingest.http.post(f"/v1/signatures/{target}/{command}", headers=headers)
        assert answer.status_code == status, (command, answer.text)
        assert (status == 409) == ("retry-after" in answer.headers)


WORDS = {"actor": "Kim, helpdesk", "reason": "Request 4711"}


async def test_the_command_to_erase_meets_the_signature_in_its_lane_and_says_who_and_why(
    ingest: Ingest, petition: str
) -> None:
    signature = await signed(ingest, petition, "verified")
    for words in (WORDS, {"actor": "  Lee ", "reason": "Cafe\u0301"}):
        answer = await ingest.http.post(f"/v1/signatures/{signature}/erase", json=words, headers=AS_ADMIN)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == answer.json()["status_url"] == f"/v1/signatures/{signature}"
    sign, *erase = await ingest.published(petition)
    assert {(record.key, record.partition) for record in erase} == {(sign.key, sign.partition)}
    assert {dict(record.headers)["ce_type"] for record in erase} == {b"groundswell.signature.erase.v1"}
    assert len({dict(record.headers)["ce_id"] for record in erase}) == 1, "a repeated command is the same command"
    values = [json.loads(record.value) for record in erase]
    assert [(value["actor"], value["reason"]) for value in values] == [
        ("Kim, helpdesk", "Request 4711"),
        ("Lee", "Caf\u00e9"),
    ]
    assert {value["signature_id"] for value in values} == {signature}


async def test_to_erase_takes_the_administrator_a_decided_signature_and_both_words(
    ingest: Ingest, petition: str
) -> None:
    signature, undecided = await signed(ingest, petition, "verified"), await signed(ingest, petition, None)
    before = len(await ingest.published(petition))
    for target, body, headers, status, name in (
        (signature, WORDS, {}, 401, "credentials_required"),
        (signature, WORDS, AS_PARTNER, 403, "admin_only"),
        (str(uuid4()), WORDS, AS_ADMIN, 404, "signature_unknown"),
        (undecided, WORDS, AS_ADMIN, 409, "signature_undecided"),
        (signature, None, AS_ADMIN, 415, "unsupported_content_type"),
        (signature, [], AS_ADMIN, 422, "invalid_fields"),
        (signature, {"actor": "Kim"}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "reson": "typo"}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "actor": " "}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "actor": "K" * 101}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "reason": "R" * 501}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "reason": "two\nlines"}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "reason": "\x00"}, AS_ADMIN, 422, "invalid_fields"),
        (signature, {**WORDS, "reason": "x" * 20_000}, AS_ADMIN, 413, "body_too_large"),
    ):
        answer = await ingest.http.post(f"/v1/signatures/{target}/erase", json=body, headers=headers)
        assert (answer.status_code, code(answer)) == (status, name), (body, answer.text)
    assert len(await ingest.published(petition)) == before


async def test_that_a_signature_was_erased_is_told_to_those_with_credentials(ingest: Ingest, petition: str) -> None:
    signature = await signed(ingest, petition, "verified")
    address = f"/v1/signatures/{signature}"
    assert (await ingest.http.get(address, headers=AS_ADMIN)).json()["erased_at"] is None
    connection = await asyncpg.connect(ingest.postgres_url)
    try:
        await connection.execute("UPDATE signatures SET erased_at = now() WHERE signature_id = $1", UUID(signature))
    finally:
        await connection.close()
    for headers in (AS_ADMIN, AS_PARTNER):
        told = (await ingest.http.get(address, headers=headers)).json()
        assert (told["status"], told["erased_at"] is None) == ("verified", False)
    stranger = (await ingest.http.get(address)).json()
    assert (stranger["status"], stranger["erased_at"]) == ("verified", None)


# ------------------------------------------------------------------------------------------------------------- petitions


async def test_a_petition_is_created_then_changed_and_shown_without_addresses(ingest: Ingest) -> None:
    petition_id = f"petition-{uuid4().hex[:12]}"
    address = f"/v1/petitions/{petition_id}"
    assert (await ingest.http.get(address)).status_code == 404
    created = await ingest.http.put(address, json=STATE, headers=AS_ADMIN)
    assert created.status_code == 201
    assert created.json()["targets"][0]["email"] == "post@council.example"
    changed = await ingest.http.put(address, json={**STATE, "title": "Night trains, now"}, headers=AS_ADMIN)
    assert changed.status_code == 200
    shown = await ingest.http.get(address)
    assert (shown.json()["title"], shown.json()["admission"]) == ("Night trains, now", "open")
    assert "council.example" not in shown.text


async def test_a_petition_keeps_the_mailbox_rules_that_it_was_made_with(ingest: Ingest) -> None:
    """Otherwise a signer would get another key while it runs, and could sign again."""
    made, old = f"petition-{uuid4().hex[:12]}", f"petition-{uuid4().hex[:12]}"
    created = await ingest.http.put(f"/v1/petitions/{made}", json=STATE, headers=AS_ADMIN)
    assert created.json()["mailbox_rules"] == LATEST
    # As it was written before there were versions.
    await ingest.publish_petition(old, changed_at="2026-11-01T12:00:00Z")
    changed = await ingest.http.put(f"/v1/petitions/{old}", json={**STATE, "title": "Later"}, headers=AS_ADMIN)
    assert (changed.status_code, changed.json()["mailbox_rules"]) == (200, 1)
    for petition_id, canonical in ((made, "robin@proton.me"), (old, "ro.bin@proton.me")):
        assert (await ingest.sign(petition_id, email="Ro.Bin+trains@Proton.me")).status_code == 202
        (record,) = await ingest.published(petition_id)
        assert record.key.decode() == signer_key(PEPPER.encode(), petition_id, canonical).hex


async def test_a_typo_in_a_petition_shows(ingest: Ingest) -> None:
    address = "/v1/petitions/typos"
    for change, field in (
        ({"milestonez": [1]}, "milestonez"),
        ({"organisation": {**STATE["organisation"], "nome": "x"}}, "organisation.nome"),
        ({"targets": [{**STATE["targets"][0], "email": "post at council"}]}, "targets.0.email"),
        ({"milestones": [2, 1]}, "(body)"),
        ({"title": "Two\nlines"}, "title"),
    ):
        answer = await ingest.http.put(address, json={**STATE, **change}, headers=AS_ADMIN)
        assert (answer.status_code, code(answer)) == (422, "invalid_fields")
        assert answer.json()["errors"][0]["field"] == field
    assert (await ingest.http.put("/v1/petitions/-x", json=STATE, headers=AS_ADMIN)).status_code == 422
    assert (await ingest.http.put(address, json=STATE, headers=AS_PARTNER)).status_code == 403
    assert (await ingest.http.put(address, json=STATE)).status_code == 401


async def test_the_longest_text_fits_in_any_script_and_any_spelling(ingest: Ingest) -> None:
    text = "🚆" * 50_000  # 12 bytes each as JSON escapes, 4 as UTF-8
    body = json.dumps({**STATE, "text": text}).encode()
    headers = {**AS_ADMIN, "content-type": "application/json"}
    answer = await ingest.http.put("/v1/petitions/long-text", content=body, headers=headers)
    assert answer.status_code in (200, 201)
    assert (await ingest.http.get("/v1/petitions/long-text")).json()["text"] == text


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
