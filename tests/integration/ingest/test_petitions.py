"""Petitions over HTTP, on a real broker and a real PostgreSQL."""

from __future__ import annotations

import json
from uuid import uuid4

from shared.contract.identity import signer_key
from shared.contract.mailboxes.providers import LATEST
from tests.support.running_ingest import AS_ADMIN, AS_PARTNER, PEPPER, STATE, Ingest, code


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
