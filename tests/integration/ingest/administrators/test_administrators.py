"""What administrators see of petitions and may do with them, and what is written down about it. On real parts."""

from __future__ import annotations

import json
from uuid import uuid4

from shared.contract.identity import signer_key
from tests.integration.ingest.administrators.administering import (
    AS_KIM,
    AS_LEE,
    AS_PAT,
    GUARDED,
    KIM,
    RIVER,
    events,
    new_id,
    patch,
)
from tests.support.running_ingest import AS_ADMIN, AS_PARTNER, PEPPER, STATE, Ingest, code

# --------------------------------------------------------------------------------------------------------------- reading


async def test_an_administrator_sees_all_of_a_petition_and_everyone_else_what_they_may_know(
    ingest: Ingest, guarded: str
) -> None:
    whole = await ingest.http.get(guarded, headers=AS_KIM)
    assert whole.status_code == 200
    assert whole.json()["targets"] == GUARDED["targets"]
    assert whole.json()["policy"] == GUARDED["policy"]
    assert (whole.json()["published"], whole.json()["paused"]) == (True, None)
    assert whole.headers["etag"].startswith('"')
    assert whole.headers["cache-control"] == "private, no-store"
    assert whole.headers["vary"] == "Authorization, X-API-Key"
    for credentials in ({}, AS_PARTNER, AS_LEE, AS_PAT):
        shown = await ingest.http.get(guarded, headers=credentials)
        assert shown.status_code == 200
        assert "post@council.example" not in shown.text
        assert "trash.example" not in shown.text
        assert "etag" not in shown.headers
        assert shown.headers["cache-control"].startswith("public")
        assert shown.headers["vary"] == "Authorization, X-API-Key"
    wrong = await ingest.http.get(guarded, headers={"Authorization": "Bearer nobody's"})
    assert (wrong.status_code, code(wrong)) == (401, "credentials_wrong")


async def test_what_is_shown_can_be_put_back_with_one_field_changed(ingest: Ingest, guarded: str) -> None:
    shown = await ingest.http.get(guarded, headers=AS_KIM)
    body = {**shown.json(), "title": "Night trains, now"}
    changed = await ingest.http.put(guarded, json=body, headers={**AS_KIM, "If-Match": shown.headers["etag"]})
    assert changed.status_code == 200
    again = await ingest.http.get(guarded, headers=AS_KIM)
    assert again.json()["policy"] == GUARDED["policy"]
    assert again.json()["targets"] == GUARDED["targets"]
    assert again.json()["title"] == "Night trains, now"
    assert again.headers["etag"] == changed.headers["etag"] != shown.headers["etag"]
    assert again.json()["version"] > shown.json()["version"]
    unchanged = await ingest.http.get(guarded, headers={**AS_KIM, "If-None-Match": again.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_body_that_was_meant_for_another_petition_is_refused(ingest: Ingest, guarded: str) -> None:
    body = {**GUARDED, "petition_id": "another"}
    answer = await ingest.http.put(guarded, json=body, headers=AS_KIM)
    assert (code(answer), answer.json()["errors"][0]["field"]) == ("invalid_fields", "petition_id")
    assert (await patch(ingest, guarded, {"petition_id": "another"})).status_code == 422


async def test_an_administrator_lists_petitions_and_those_of_one_organisation_page_by_page(ingest: Ingest) -> None:
    slug = f"org-{uuid4().hex[:8]}"
    mine = sorted(new_id() for _ in range(5))
    for petition_id in mine:
        organisation = {"slug": slug, "name": "Page by page"}
        await ingest.start_petition(petition_id, organisation=organisation, published=petition_id != mine[1])
    found, url = [], f"/v1/petitions?organisation={slug}&limit=2"
    while url is not None:
        page = await ingest.http.get(url, headers=AS_KIM)
        assert page.headers["cache-control"] == "private, no-store"
        found += page.json()["petitions"]
        assert len(page.json()["petitions"]) <= 2
        url = page.json()["next"]
    assert [petition["petition_id"] for petition in found] == mine
    assert [petition["published"] for petition in found] == [True, False, True, True, True]
    one = await ingest.http.get(f"/v1/petitions/{mine[0]}", headers=AS_KIM)
    assert found[0]["etag"] == one.headers["etag"]
    for query in ("limit=0", "limit=x", "limit=501", "organisation=UP", "after=%00", "limit=1&limit=2"):
        assert (await ingest.http.get(f"/v1/petitions?{query}", headers=AS_KIM)).status_code == 422
    for headers, status in (({}, 401), (AS_PARTNER, 403), (AS_PAT, 403)):
        assert (await ingest.http.get("/v1/petitions", headers=headers)).status_code == status


# -------------------------------------------------------------------------------------------------- paused and unpublished


async def test_a_paused_petition_takes_no_signatures_and_says_why(ingest: Ingest) -> None:
    petition_id = new_id()
    await ingest.start_petition(petition_id)
    accepted = await ingest.sign(petition_id)
    assert accepted.status_code == 202
    address, sentence = f"/v1/petitions/{petition_id}", "We are counting names; signing is back on Monday."
    assert (await patch(ingest, address, {"paused": {"sentence": sentence}})).status_code == 200
    refused = await ingest.sign(petition_id)
    assert (refused.status_code, code(refused), refused.json()["detail"]) == (409, "petition_paused", sentence)
    line = json.dumps({"email": "a@mail.example", "name": "A", "country": "NL"})
    ndjson = {**AS_PARTNER, "content-type": "application/x-ndjson"}
    batch = await ingest.http.post(f"{address}/signatures/batch", content=line, headers=ndjson)
    assert (batch.status_code, batch.json()["detail"]) == (409, sentence)
    form = await ingest.http.post(f"{address}/signatures", data={"name": "A"}, headers={"accept": "text/html"})
    assert (form.status_code, "refused=petition_paused" in form.headers["location"]) == (307, True)
    shown = (await ingest.http.get(address)).json()
    assert (shown["admission"], shown["paused"]) == ("paused", {"sentence": sentence})
    left_out = await ingest.http.put(address, json=STATE, headers=AS_KIM)
    assert [error["field"] for error in left_out.json()["errors"]] == ["paused"]
    assert (await patch(ingest, address, {"paused": None})).status_code == 200
    assert (await ingest.sign(petition_id)).status_code == 202


async def test_an_unpublished_petition_is_there_for_its_administrators_alone(ingest: Ingest) -> None:
    petition_id = new_id()
    await ingest.start_petition(petition_id)
    address = f"/v1/petitions/{petition_id}"
    assert (await patch(ingest, address, {"published": False})).status_code == 200
    for credentials in ({}, AS_PARTNER, AS_LEE):
        hidden = await ingest.http.get(address, headers=credentials)
        assert (hidden.status_code, code(hidden)) == (404, "petition_unknown")
    refused = await ingest.sign(petition_id)
    assert (refused.status_code, code(refused)) == (404, "petition_unknown")
    whole = await ingest.http.get(address, headers=AS_KIM)
    assert (whole.status_code, whole.json()["published"]) == (200, False)
    left_out = await ingest.http.put(address, json=STATE, headers=AS_KIM)
    assert [error["field"] for error in left_out.json()["errors"]] == ["published"]
    assert (await patch(ingest, address, {"published": True})).status_code == 200
    assert (await ingest.sign(petition_id)).status_code == 202


# ----------------------------------------------------------------------------------------------------------- bound tokens


async def test_a_bound_token_is_for_the_petitions_of_its_organisations_alone(ingest: Ingest, guarded: str) -> None:
    mine = f"/v1/petitions/{new_id()}"
    assert (await ingest.http.put(mine, json=RIVER, headers=AS_LEE)).status_code == 201
    assert "post@council.example" in (await ingest.http.get(mine, headers=AS_LEE)).text
    assert (await patch(ingest, mine, {"title": "Ours"}, **AS_LEE)).status_code == 200
    # Neither another's petition, nor one more for another, nor one's own given away.
    before = (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"]
    for address, body in ((guarded, GUARDED), (guarded, RIVER), (mine, STATE), (f"/v1/petitions/{new_id()}", STATE)):
        answer = await ingest.http.put(f"{address}?replace=true", json=body, headers=AS_LEE)
        assert (answer.status_code, code(answer)) == (403, "other_organisation")
    moved = await patch(ingest, mine, {"organisation": {"slug": "open-rails"}}, **AS_LEE)
    assert (moved.status_code, code(moved)) == (403, "other_organisation")
    assert (await patch(ingest, guarded, {"title": "Theirs"}, **AS_LEE)).status_code == 404
    assert (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"] == before
    # Between its own organisations it may.
    harbour = {"organisation": {"slug": "harbour", "name": "Harbour"}}
    assert (await patch(ingest, mine, harbour, **AS_LEE)).status_code == 200
    listed = (await ingest.http.get("/v1/petitions?limit=500", headers=AS_LEE)).json()["petitions"]
    assert {petition["organisation"]["slug"] for petition in listed} <= {"river-valley", "harbour"}
    assert mine.rpartition("/")[2] in {petition["petition_id"] for petition in listed}
    theirs = await ingest.http.get("/v1/petitions?organisation=open-rails", headers=AS_LEE)
    assert theirs.json()["petitions"] == []


async def test_a_bound_key_neither_sends_batches_for_others_nor_touches_their_signatures(ingest: Ingest) -> None:
    mine, theirs = new_id(), new_id()
    await ingest.start_petition(mine, organisation=RIVER["organisation"])
    await ingest.start_petition(theirs)
    line = json.dumps({"email": "a@mail.example", "name": "A", "country": "NL"})
    for petition_id, status in ((mine, 207), (theirs, 404), (new_id(), 404)):
        answer = await ingest.http.post(
            f"/v1/petitions/{petition_id}/signatures/batch",
            content=line,
            headers={**AS_PAT, "content-type": "application/x-ndjson"},
        )
        assert answer.status_code == status
    signatures = {}
    for petition_id in (mine, theirs):
        standing, signature = [(await ingest.sign(petition_id)).json()["signature_id"] for _ in range(2)]
        signer = signer_key(PEPPER.encode(), petition_id, "robin@mail.example")
        await ingest.decide(standing, state="pending", petition_id=petition_id, signer=signer)
        await ingest.decide_duplicate(signature, of=standing, petition_id=petition_id, signer=signer)
        signatures[petition_id] = f"/v1/signatures/{signature}"
    words = {"reason": "Request 4711"}
    for headers, commands in ((AS_PAT, ("confirm", "withdraw")), (AS_LEE, ("invalidate", "erase", "confirm"))):
        for command in commands:
            refused = await ingest.http.post(f"{signatures[theirs]}/{command}", json=words, headers=headers)
            assert (refused.status_code, code(refused)) == (404, "signature_unknown")
            done = await ingest.http.post(f"{signatures[mine]}/{command}", json=words, headers=headers)
            assert done.status_code == 202
        # For another organisation's signature they see what strangers see: no duplicates.
        assert (await ingest.http.get(signatures[mine], headers=headers)).json()["status"] == "duplicate"
        assert (await ingest.http.get(signatures[theirs], headers=headers)).json()["status"] == "verified"
    assert len(await ingest.published(theirs)) == 2
    assert await events(ingest, theirs) == [row for row in await events(ingest, theirs) if row["call"] == "put"]


# ---------------------------------------------------------------------------------------------------------------- record


async def test_every_call_leaves_a_row_and_a_line_with_names_and_no_values(ingest: Ingest) -> None:
    petition_id = new_id()
    address = f"/v1/petitions/{petition_id}"
    created = await ingest.http.put(address, json=STATE, headers={**AS_ADMIN, "X-Request-ID": "ticket-4711"})
    changed = await patch(
        ingest,
        address,
        {
            "targets": [{**STATE["targets"][0], "email": "planted@council.example"}],
            "policy": {"blocked_email_domains": ["planted-trash.example"]},
        },
    )
    signature = (await ingest.sign(petition_id)).json()["signature_id"]
    signer = signer_key(PEPPER.encode(), petition_id, "robin@mail.example")
    await ingest.decide(signature, state="pending", petition_id=petition_id, signer=signer)
    for command, headers in (("confirm", AS_PARTNER), ("withdraw", AS_KIM), ("erase", AS_KIM)):
        answer = await ingest.http.post(
            f"/v1/signatures/{signature}/{command}", json={"reason": "Request 4711"}, headers=headers
        )
        assert answer.status_code == 202
    rows = await events(ingest, petition_id)
    assert [(row["actor"], row["role"], row["call"], row["outcome"]) for row in rows] == [
        ("admin", "admin", "put", "done"),
        ("kim", "admin", "patch", "done"),
        ("partner", "partner", "confirm", "done"),
        ("kim", "admin", "withdraw", "done"),
        ("kim", "admin", "erase", "done"),
    ]
    assert rows[0]["changed"] == ["organisation.slug", "organisation.name", "title", "text", "targets", "milestones"]
    assert rows[1]["changed"] == ["targets", "policy.blocked_email_domains"]
    assert (rows[0]["etag_before"], rows[0]["etag_after"]) == (None, created.headers["etag"])
    assert (rows[1]["etag_before"], rows[1]["etag_after"]) == (created.headers["etag"], changed.headers["etag"])
    assert [str(row["signature_id"]) for row in rows[2:]] == [signature] * 3
    assert rows[0]["request_id"] == "ticket-4711"
    log = ingest.process.log_file.read_text()
    lines = [json.loads(line) for line in log.splitlines() if '"admin_event"' in line]
    said = [line for line in lines if line["petition_id"] == petition_id]
    assert [(line["actor"], line["call"], line["outcome"]) for line in said] == [
        (row["actor"], row["call"], row["outcome"]) for row in rows
    ]
    assert said[1]["changed"] == rows[1]["changed"]
    for text in (log, *(str(dict(row)) for row in rows)):
        assert "planted" not in text
        assert KIM not in text
    # The erasure names the token, as its body names nobody.
    command = json.loads((await ingest.published(petition_id))[-1].value)
    assert (command["actor"], command["reason"]) == ("kim", "Request 4711")


async def test_who_is_known_and_may_not_leaves_a_line_and_no_row(ingest: Ingest, guarded: str) -> None:
    petition_id = guarded.rpartition("/")[2]
    sample = 'groundswell_ingest_admin_events_total{call="put",outcome="refused"}'
    before = await ingest.metric(sample)
    assert (await ingest.http.put(guarded, json=STATE, headers=AS_PARTNER)).status_code == 403
    assert (await ingest.http.put(guarded, json=RIVER, headers=AS_LEE)).status_code == 403
    assert await ingest.metric(sample) == before + 2
    assert [row["call"] for row in await events(ingest, guarded)] == ["put"]
    lines = [json.loads(line) for line in ingest.process.log_file.read_text().splitlines() if '"admin_event"' in line]
    refused = [line["actor"] for line in lines if line["petition_id"] == petition_id and line["outcome"] == "refused"]
    assert refused == ["partner", "lee"]
