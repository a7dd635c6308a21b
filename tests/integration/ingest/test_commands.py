"""The status of signatures, and commands about them, over HTTP, on a real broker and a real PostgreSQL."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import asyncpg

from shared.contract.events import ConfirmCommand
from shared.contract.identity import command_id, signer_key
from tests.support.running_ingest import AS_ADMIN, AS_PARTNER, PEPPER, Ingest, code


async def signed(ingest: Ingest, petition_id: str, state: str | None, reason: str | None = None) -> str:
    """A signature of a new signer, decided as `state`."""
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
    await ingest.decide_duplicate(second, of=first, petition_id=petition, signer=signer)
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
        await ingest.decide_duplicate(second, of=first, petition_id=petition, signer=signer)
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
