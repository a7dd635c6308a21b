"""Changing petitions: preconditions, patches, and what a body leaves out. On real parts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.ingest.administrators.administering import (
    AS_KIM,
    GUARDED,
    MERGE,
    events,
    new_id,
    patch,
)
from tests.support.running_ingest import STATE, Ingest, code

# ---------------------------------------------------------------------------------------------------------- preconditions


async def test_who_changes_a_state_that_is_not_there_any_more_is_told_so(ingest: Ingest, guarded: str) -> None:
    seen = (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"]
    assert (await patch(ingest, guarded, {"title": "First"}, **{"If-Match": seen})).status_code == 200
    late = await patch(ingest, guarded, {"title": "Second"}, **{"If-Match": seen})
    assert (late.status_code, code(late)) == (412, "precondition_failed")
    body = {**GUARDED, "title": "Third"}
    late = await ingest.http.put(guarded, json=body, headers={**AS_KIM, "If-Match": seen})
    assert late.status_code == 412
    now = await ingest.http.get(guarded, headers=AS_KIM)
    assert now.json()["title"] == "First"
    weak = {"If-Match": f"W/{now.headers['etag']}"}
    assert (await patch(ingest, guarded, {"title": "Weak"}, **weak)).status_code == 412
    listed = {"If-Match": f'"x", {now.headers["etag"]}'}
    assert (await patch(ingest, guarded, {"title": "Listed"}, **listed)).status_code == 200


async def test_a_petition_is_created_only_if_it_is_not_there(ingest: Ingest) -> None:
    address = f"/v1/petitions/{new_id()}"
    missing = await ingest.http.put(address, json=STATE, headers={**AS_KIM, "If-Match": "*"})
    assert missing.status_code == 412
    only_new = {**AS_KIM, "If-None-Match": "*"}
    assert (await ingest.http.put(address, json=STATE, headers=only_new)).status_code == 201
    assert (await ingest.http.put(address, json=STATE, headers=only_new)).status_code == 412
    assert (await ingest.http.put(address, json=STATE, headers={**AS_KIM, "If-Match": "*"})).status_code == 200


async def test_of_many_who_change_one_state_at_once_through_two_instances_one_does(
    ingest: Ingest, other: Ingest, guarded: str
) -> None:
    for turn in range(3):
        seen = (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"]
        answers = await asyncio.gather(
            *(
                patch(instance, guarded, {"title": f"Turn {turn}, writer {writer}"}, **{"If-Match": seen})
                for writer, instance in enumerate((ingest, other) * 4)
            )
        )
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200, *[412] * 7], [answer.text for answer in answers]
        (winner,) = [answer for answer in answers if answer.status_code == 200]
        for instance in (ingest, other):
            now = await instance.http.get(guarded, headers=AS_KIM)
            assert (now.json(), now.headers["etag"]) == (winner.json(), winner.headers["etag"])


async def test_of_many_who_create_one_petition_at_once_one_does(ingest: Ingest, other: Ingest) -> None:
    address = f"/v1/petitions/{new_id()}"
    answers = await asyncio.gather(
        *(
            instance.http.put(
                address, json={**STATE, "title": f"By {writer}"}, headers={**AS_KIM, "If-None-Match": "*"}
            )
            for writer, instance in enumerate((ingest, other) * 3)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, *[412] * 5]


async def test_patches_of_different_fields_at_the_same_moment_all_hold(
    ingest: Ingest, other: Ingest, guarded: str
) -> None:
    changes: list[dict[str, Any]] = [
        {"title": "Another title"},
        {"text": "Another text."},
        {"milestones": [7]},
        {"policy": {"countries": ["FR"]}},
        {"policy": {"blocked_email_domains": ["bin.example"]}},
        {"organisation": {"name": "Another name"}},
    ]

    async def patched(instance: Ingest, change: dict[str, Any]) -> int:
        # On a slow machine one may lose so often that it is asked to send its change again.
        while (answer := await patch(instance, guarded, change)).status_code == 409:
            assert code(answer) == "change_overtaken"
        return answer.status_code

    answers = await asyncio.gather(
        *(patched(instance, change) for change, instance in zip(changes, (ingest, other) * 3, strict=True))
    )
    assert answers == [200] * 6
    state = (await other.http.get(guarded, headers=AS_KIM)).json()
    assert (state["title"], state["text"], state["milestones"]) == ("Another title", "Another text.", [7])
    assert state["organisation"] == {"slug": "open-rails", "name": "Another name"}
    assert state["policy"] == {**GUARDED["policy"], "countries": ["FR"], "blocked_email_domains": ["bin.example"]}
    written = await events(ingest, guarded)
    assert [row["outcome"] for row in written] == ["done"] * 7
    by_version = sorted(written, key=lambda row: row["version"])
    assert [row["follows"] for row in by_version] == [0, *(row["version"] for row in by_version[:-1])]
    assert [row["etag_before"] for row in by_version] == [None, *(row["etag_after"] for row in by_version[:-1])]


# --------------------------------------------------------------------------------------------------------------- patch


async def test_a_patch_changes_what_it_names_and_null_removes(ingest: Ingest, guarded: str) -> None:
    changed = await patch(ingest, guarded, {"closes_at": None, "policy": {"countries": None, "confirmation": "none"}})
    assert changed.status_code == 200
    expected = {
        **GUARDED,
        "closes_at": None,
        "policy": {**GUARDED["policy"], "countries": None, "confirmation": "none"},
    }
    assert {name: changed.json()[name] for name in expected} == expected
    target = {"target_id": "minister", "name": "The Minister", "kind": "person", "email": "m@minister.example"}
    replaced = await patch(ingest, guarded, {"targets": [target]})
    assert replaced.json()["targets"] == [target]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"title": None}, "title"),
        ({"title": "Two\nlines"}, "title"),
        ({"policy": {"countrys": ["NL"]}}, "policy.countrys"),
        ({"policy": {"countrys": None}}, "policy.countrys"),
        ({"milestones": [2, 1]}, "(body)"),
        ({"opens_at": "2099-06-01T00:00:00Z"}, "(body)"),  # it closes before that
        ({"paused": {}}, "paused.sentence"),
        ({"paused": {"sentence": "  "}}, "paused.sentence"),
        ({"policy": "none"}, "policy"),
        ([1], "(body)"),
        (None, "(body)"),
    ],
)
async def test_the_result_of_a_patch_is_checked_as_a_whole(
    ingest: Ingest, guarded: str, change: Any, field: str
) -> None:
    before = (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"]
    answer = await patch(ingest, guarded, change)
    assert (answer.status_code, code(answer)) == (422, "invalid_fields")
    assert answer.json()["errors"][0]["field"] == field
    assert (await ingest.http.get(guarded, headers=AS_KIM)).headers["etag"] == before


async def test_a_patch_in_another_form_is_refused_with_the_one_that_is_taken(ingest: Ingest, guarded: str) -> None:
    for kind in ("application/json", "application/json-patch+json"):
        answer = await ingest.http.patch(guarded, content="{}", headers={**AS_KIM, "content-type": kind})
        assert (answer.status_code, answer.headers["accept-patch"]) == (415, "application/merge-patch+json")
    broken = await ingest.http.patch(guarded, content="{", headers={**AS_KIM, **MERGE})
    assert code(broken) == "malformed_body"
    unknown = await patch(ingest, f"/v1/petitions/{new_id()}", {"title": "x"})
    assert (unknown.status_code, code(unknown)) == (404, "petition_unknown")


# -------------------------------------------------------------------------------------------------------------- left out


async def test_a_protection_that_a_body_leaves_out_is_not_dropped_without_a_word(ingest: Ingest, guarded: str) -> None:
    answer = await ingest.http.put(guarded, json=STATE, headers=AS_KIM)
    assert (answer.status_code, code(answer)) == (409, "fields_left_out")
    assert [error["field"] for error in answer.json()["errors"]] == [
        "closes_at",
        "policy.confirmation",
        "policy.countries",
        "policy.blocked_email_domains",
        "policy.require_consent",
    ]
    partly = {**GUARDED, "policy": {**GUARDED["policy"]}}
    del partly["policy"]["blocked_email_domains"]
    answer = await ingest.http.put(guarded, json=partly, headers=AS_KIM)
    assert [error["field"] for error in answer.json()["errors"]] == ["policy.blocked_email_domains"]
    assert (await ingest.http.get(guarded, headers=AS_KIM)).json()["policy"] == GUARDED["policy"]


async def test_a_protection_is_dropped_where_the_body_says_it_or_the_query(ingest: Ingest, guarded: str) -> None:
    nothing = {"confirmation": "none", "countries": None, "blocked_email_domains": [], "require_consent": False}
    outright = {**STATE, "closes_at": None, "policy": nothing}
    said = await ingest.http.put(guarded, json=outright, headers=AS_KIM)
    assert (said.status_code, said.json()["policy"]) == (200, nothing)
    await ingest.http.put(guarded, json=GUARDED, headers=AS_KIM)
    replaced = await ingest.http.put(f"{guarded}?replace=true", json=STATE, headers=AS_KIM)
    assert (replaced.status_code, replaced.json()["policy"]) == (200, nothing)
    assert (await ingest.http.put(f"{guarded}?replace=yes", json=STATE, headers=AS_KIM)).status_code == 422
