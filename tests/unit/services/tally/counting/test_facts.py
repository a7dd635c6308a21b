"""Facts as tally reads them, beside the models that others write."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.tally.counting.facts import RevokedFact, VerifiedFact
from shared.contract.events import CountedFact, SignatureRevoked, SignatureVerified
from shared.kafka.records.decode import reader

FORMS: dict[type[CountedFact], Any] = {SignatureVerified: VerifiedFact, SignatureRevoked: RevokedFact}

moments = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))
fields = st.fixed_dictionaries(
    {
        "signature_id": st.uuids(),
        "petition_id": st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True),
        "lane": st.integers(0, 2**31),
        "position": st.integers(1, 2**60),
        "country": st.from_regex(r"[A-Z]{2}", fullmatch=True),
        "signed_at": moments,
        "occurred_at": moments,
    }
)


@given(fields, st.sampled_from([None, "withdrawn", "invalidated"]))
def test_what_a_model_writes_is_read_with_the_same_fields(values: dict[str, Any], cause: str | None) -> None:
    model = SignatureVerified(**values) if cause is None else SignatureRevoked(**values, cause=cause)
    fact = reader(FORMS[type(model)])(model.model_dump_json().encode())
    assert fact == model.model_dump()


@pytest.mark.parametrize("model", FORMS)
def test_it_has_the_fields_of_its_model_and_no_others(model: type[CountedFact]) -> None:
    assert set(FORMS[model].__annotations__) == set(model.model_fields)


ODD: list[Any] = [None, True, 0, -1, 1, 1.5, "", "x", "DE", "withdrawn", "2026-11-22T10:00:00", "not-a-uuid", [], {}]


@pytest.mark.parametrize("model", FORMS)
@given(data=st.data())
def test_what_a_model_refuses_is_refused_and_nothing_else(model: type[CountedFact], data: st.DataObject) -> None:
    sample: dict[str, Any] = {
        "signature_id": "0190aaaa-bbbb-4ccc-8ddd-eeeeffff0000",
        "petition_id": "ferry",
        "lane": 1,
        "position": 2,
        "country": "NL",
        "signed_at": "2026-11-22T10:00:00Z",
        "occurred_at": (datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=1)).isoformat(),
        "delta": model.model_fields["delta"].default,
        "cause": "withdrawn",
    }
    name = data.draw(st.sampled_from(sorted(sample)))
    if data.draw(st.booleans()):
        del sample[name]
    else:
        sample[name] = data.draw(st.sampled_from(ODD))
    text = json.dumps(sample).encode()
    assert is_read(reader(FORMS[model]), text) == is_read(reader(model), text)


def is_read(read: Any, text: bytes) -> bool:
    try:
        read(text)
    except ValidationError:
        return False
    return True
