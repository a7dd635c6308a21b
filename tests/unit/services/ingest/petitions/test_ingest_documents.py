"""Petitions as documents: what a merge patch does, what a body leaves out, and which tags name which state."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest.petitions.documents import (
    changed_fields,
    etag_of,
    left_out,
    merged,
    state_document,
    unknown_fields,
)
from services.ingest.web.schemas import PetitionBody
from shared.contract.events import Organisation, Pause, PetitionChanged, PetitionState, Policy
from shared.web.entity_tags import matches
from tests.support.signing import petition

CLOSES = datetime(2100, 1, 1, tzinfo=UTC)
GUARDED = petition(
    milestones=[10, 100],
    opens_at=datetime(2026, 1, 1, tzinfo=UTC),
    closes_at=CLOSES,
    policy=Policy(
        confirmation="required", countries=["NL"], blocked_email_domains=["trash.example"], require_consent=True
    ),
    paused=Pause(sentence="Back on Monday."),
    published=False,
    language="nl",
)


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_patch_is_merged_as_the_rfc_has_it(document: Any, patch: Any, result: Any) -> None:
    assert merged(document, patch) == result


def test_a_patch_leaves_the_document_that_it_is_merged_into_as_it_is() -> None:
    document = state_document(GUARDED)
    merged(document, {"policy": {"countries": None}})
    assert document == state_document(GUARDED)


def test_a_typo_in_a_patch_shows_also_one_that_would_remove_nothing() -> None:
    patch = {
        "closs_at": None,
        "policy": {"country": None, "countries": None},
        "organisation": {"nome": "x"},
        "title": "x",
    }
    assert unknown_fields({"paused": {"sentense": None}}) == ["paused.sentense"]
    assert unknown_fields({"version": 1, "petition_id": "x", "changed_at": None}) == [
        "version",
        "petition_id",
        "changed_at",
    ]
    assert unknown_fields(patch) == ["closs_at", "organisation.nome", "policy.country"]


# ---------------------------------------------------------------------------------------------------------- left out


def body(**fields: Any) -> PetitionBody:
    """A body of PUT that names these fields and those that it must."""
    must = {name: state_document(GUARDED)[name] for name in ("organisation", "title", "text", "targets")}
    return PetitionBody.model_validate_json(json.dumps({**must, **fields}))


def test_whatever_holds_something_and_is_not_named_is_left_out() -> None:
    assert left_out(GUARDED, body()) == [
        "milestones",
        "opens_at",
        "closes_at",
        "policy.confirmation",
        "policy.countries",
        "policy.blocked_email_domains",
        "policy.require_consent",
        "paused",
        "published",
        "language",
    ]


def test_a_part_of_the_policy_that_is_named_says_nothing_of_the_others() -> None:
    named = {"milestones": [], "opens_at": None, "closes_at": None, "paused": None, "published": True, "language": None}
    assert left_out(GUARDED, body(**named, policy={"countries": None, "require_consent": False})) == [
        "policy.confirmation",
        "policy.blocked_email_domains",
    ]


def test_what_is_said_outright_is_not_left_out_also_if_it_is_nothing() -> None:
    nothing = {"confirmation": "none", "countries": None, "blocked_email_domains": [], "require_consent": False}
    named = {"milestones": [], "opens_at": None, "closes_at": None, "paused": None, "published": True, "language": None}
    assert left_out(GUARDED, body(**named, policy=nothing)) == []


def test_of_a_petition_without_any_of_it_nothing_is_left_out() -> None:
    assert left_out(petition(), body()) == []


# ----------------------------------------------------------------------------------------------------------- changes


def test_changes_are_told_by_the_names_of_their_fields() -> None:
    before = petition(policy=Policy(countries=["NL"]))
    after = petition(
        title="Another", policy=Policy(countries=["BE"]), organisation=Organisation(slug="river-valley", name="New")
    )
    assert changed_fields(before, after) == ["organisation.name", "title", "policy.countries"]
    assert changed_fields(before, before) == []


def test_of_a_new_petition_what_it_holds_has_changed() -> None:
    assert changed_fields(None, petition(policy=Policy(require_consent=True))) == [
        "organisation.slug",
        "organisation.name",
        "title",
        "text",
        "targets",
        "policy.require_consent",
    ]


def test_every_field_of_a_petition_is_told_of() -> None:
    """A field that is added later must not be one that can be changed, or left out, without a word."""
    fields = set(PetitionState.model_fields) - {"organisation", "policy"}
    fields |= {f"organisation.{name}" for name in Organisation.model_fields}
    fields |= {f"policy.{name}" for name in Policy.model_fields}
    assert set(changed_fields(None, GUARDED)) == fields


# -------------------------------------------------------------------------------------------------------------- tags


def test_a_tag_stands_for_one_state_at_one_time_and_is_the_same_for_everyone_who_reads_it() -> None:
    read = PetitionChanged.model_validate_json(GUARDED.model_dump_json())
    assert etag_of(read) == etag_of(GUARDED)
    others = [
        petition(),
        petition(version=1),
        petition(version=2),
        petition(title="Another"),
        petition(published=False),
    ]
    assert len({etag_of(one) for one in (GUARDED, *others)}) == 6


@pytest.mark.parametrize(
    ("condition", "strongly", "weakly"),
    [
        ('"a"', True, True),
        ("*", True, True),
        (' "b" , "a"', True, True),
        ('W/"a"', False, True),
        ('"b", W/"a"', False, True),
        ('"b"', False, False),
        ('"A"', False, False),
        ("a", False, False),
        ('"a', False, False),
        ('b, "a"', False, False),
        ("", False, False),
        ('"a"x', False, False),
    ],
)
def test_a_condition_names_a_state_by_its_tag(condition: str, strongly: bool, weakly: bool) -> None:
    assert (matches(condition, '"a"'), matches(condition, '"a"', weakly=True)) == (strongly, weakly)
    assert not matches(condition, None)
