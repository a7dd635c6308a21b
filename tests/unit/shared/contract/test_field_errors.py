"""Errors of a field do not repeat what was sent."""

from typing import Annotated
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, StringConstraints, ValidationError, field_validator

from shared.contract.field_errors import field_errors


class _Body(BaseModel):
    name: Annotated[str, StringConstraints(min_length=3, pattern="^[a-z]+$")]
    when: AwareDatetime
    tags: list[int] = []

    @field_validator("tags")
    @classmethod
    def _no_seven(cls, tags: list[int]) -> list[int]:
        if 7 in tags:
            raise ValueError("seven is taken")
        return tags


def test_every_wrong_field_is_named_with_its_place_and_without_its_value() -> None:
    with pytest.raises(ValidationError) as failure:
        _Body.model_validate({"name": "CANARY1", "when": "CANARY2", "tags": [1, "CANARY3"]})
    errors = field_errors(failure.value)
    assert [error["field"] for error in errors] == ["name", "when", "tags.1"]
    assert all(error["problem"] for error in errors)
    assert "CANARY" not in str(errors)


def test_a_rule_of_ours_is_told_in_its_own_words() -> None:
    with pytest.raises(ValidationError) as failure:
        _Body.model_validate({"name": "sam", "when": "2026-11-22T12:00:00Z", "tags": [7]})
    assert field_errors(failure.value) == [{"field": "tags", "code": "value_error", "problem": "seven is taken"}]


def test_a_body_that_is_no_json_is_told_as_such() -> None:
    with pytest.raises(ValidationError) as failure:
        _Body.model_validate_json(b"{CANARY")
    [error] = field_errors(failure.value)
    assert error["field"] == "(body)"
    assert "CANARY" not in error["problem"]


class _Identified(BaseModel):
    identity: UUID


def test_a_wrong_id_is_told_without_any_letter_of_it() -> None:
    with pytest.raises(ValidationError) as failure:
        _Identified.model_validate_json(b'{"identity": "@ANARY"}')
    assert "@" in str(failure.value), "pydantic repeats one; if it no longer does, nor need we look after it"
    assert field_errors(failure.value) == [
        {"field": "identity", "code": "uuid_parsing", "problem": "Input should be a valid UUID"}
    ]
