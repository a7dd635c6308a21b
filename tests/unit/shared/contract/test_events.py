"""What the events accept and refuse. That they stay readable for others is in tests/contract."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.contract.events import (
    MilestoneReached,
    PetitionChanged,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    minute_of,
)
from tests.unit.shared.contract.petitions import NOON, petition

SIGN: dict[str, Any] = {
    "signature_id": "019356a0-0000-7000-8000-000000000001",
    "petition_id": "save-the-harbour",
    "email": "sam@example.org",
    "name": "Sam",
    "country": "NL",
    "submitted_at": "2026-11-22T12:00:00Z",
}


def sign(**changes: Any) -> SignCommand:
    return SignCommand.model_validate_json(json.dumps({**SIGN, **changes}))


def test_a_sign_command_is_read_from_json() -> None:
    command = sign()
    assert command.signature_id == UUID(SIGN["signature_id"])
    assert command.submitted_at == NOON
    assert (command.postcode, command.comment, command.consent) == (None, None, False)


def test_what_is_written_is_read_back_the_same() -> None:
    command = sign(comment="We need it. “Really.” 🚢", postcode="3011 AA", consent=True)
    assert SignCommand.model_validate_json(command.model_dump_json()) == command


def test_fields_that_a_newer_writer_added_are_ignored() -> None:
    assert sign(added_later={"deep": [1]}) == sign()


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        sign().name = "Suzie"  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"signature_id": "1"},
        {"signature_id": None},
        {"petition_id": "Save the harbour"},
        {"petition_id": "-harbour"},
        {"petition_id": "h" * 65},
        {"petition_id": "harbour\n"},
        {"petition_id": ""},
        {"email": "a@"},
        {"email": "a" * 321},
        {"name": ""},
        {"name": "n" * 201},
        {"country": "nl"},
        {"country": "NLD"},
        {"country": "NL\n"},
        {"consent": "yes"},
        {"consent": 1},
        {"submitted_at": "2026-11-22T12:00:00"},
        {"submitted_at": 1790000000},
        {"submitted_at": "yesterday"},
        {"comment": "c" * 2001},
        {"postcode": "p" * 21},
        {"name": 7},
    ],
)
def test_a_malformed_sign_command_is_refused_and_the_error_repeats_no_value(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as failure:
        sign(**{"comment": "CANARY", **changes})
    assert "input_value" not in str(failure.value)


def fact(**changes: Any) -> dict[str, Any]:
    known = {"signature_id": uuid4(), "petition_id": "p", "lane": 0, "position": 1, "country": "NL"}
    return {**known, "signed_at": NOON, "occurred_at": NOON, **changes}


def test_a_verified_signature_counts_plus_one_and_a_revoked_one_minus_one() -> None:
    assert SignatureVerified(**fact()).delta == 1
    assert SignatureRevoked(**fact(cause="withdrawn")).delta == -1
    with pytest.raises(ValidationError):
        SignatureVerified(**fact(delta=2))
    with pytest.raises(ValidationError):
        SignatureRevoked(**fact(cause="withdrawn", delta=1))


@pytest.mark.parametrize("changes", [{"lane": -1}, {"position": 0}, {"position": "1"}, {"cause": "bored"}])
def test_a_fact_without_a_sound_place_in_the_ledger_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SignatureRevoked(**fact(**{"cause": "withdrawn", **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": [10, 10]}, "milestones must rise"),
        ({"milestones": [20, 10]}, "milestones must rise"),
        ({"milestones": [0]}, "greater than or equal to 1"),
        ({"opens_at": NOON, "closes_at": NOON}, "opens_at must be before closes_at"),
        ({"opens_at": NOON + timedelta(1), "closes_at": NOON}, "opens_at must be before closes_at"),
        ({"targets": []}, "at least 1 item"),
        ({"targets": list(petition().targets) * 2}, "each target_id may appear once"),
        ({"opens_at": datetime(2026, 1, 1)}, "timezone"),
    ],
)
def test_a_petition_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        petition(**changes)


def test_a_petition_is_written_and_read_back_whole() -> None:
    whole = petition(milestones=[10, 100], opens_at=NOON, closes_at=NOON + timedelta(days=1))
    assert PetitionChanged.model_validate_json(whole.model_dump_json()) == whole


def test_a_milestone_is_reached_by_somebody() -> None:
    with pytest.raises(ValidationError):
        MilestoneReached(petition_id="p", threshold=1, count=0, revision=1, reached_at=NOON)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
def test_a_minute_begins_at_its_first_instant_and_ends_before_the_next(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC)
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minute_of(moment))
    assert start <= moment < start + timedelta(minutes=1)


@pytest.mark.parametrize("language", ["nl", "pt-BR", "ar", "zh-Hant-HK", "de-CH-1996", "AR", "gsw", None])
def test_a_petition_may_say_its_language(language: str | None) -> None:
    assert petition("ferry", language=language).language == language


@pytest.mark.parametrize(
    "language", ["", "e", "pt_BR", "english language", "ar ", "-ar", "ar-", "ar\n", "a" * 9, "é", "x" * 40]
)
def test_what_is_no_language_tag_is_refused_with_an_example(language: str) -> None:
    with pytest.raises(ValidationError, match=r"must be a language tag|at most 35") as error:
        petition("ferry", language=language)
    assert error.value.errors()[0]["loc"] == ("language",)


def test_petitions_of_before_have_no_language() -> None:
    written = petition("ferry").model_dump()
    del written["language"]
    assert PetitionChanged.model_validate(written).language is None
