"""The plain texts of events are the states' own."""

from typing import get_args

from shared.contract import states
from shared.contract.states import SignatureState


def test_the_texts_of_events_are_those_of_the_states() -> None:
    assert list(get_args(states.RefusalText)) == [SignatureState.DUPLICATE, SignatureState.REJECTED]
    assert list(get_args(states.RevocationText)) == [SignatureState.WITHDRAWN, SignatureState.INVALIDATED]
    assert get_args(states.Refusal) == (SignatureState.DUPLICATE, SignatureState.REJECTED)


def test_a_state_is_its_own_text_as_value_key_and_label() -> None:
    for state in SignatureState:
        assert str(state) == f"{state}" == state.value == state.name.lower()
        assert {state.value: 1}[state] == 1
