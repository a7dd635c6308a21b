"""Which commands about a signature can have an effect, decided before they are published."""

from __future__ import annotations

from typing import get_args

import pytest

from services.ingest.signatures.effect import without_effect
from services.ingest.web.schemas import State
from shared.contract.events import ChangeCommand, ConfirmCommand, EraseCommand, InvalidateCommand, WithdrawCommand

CHANGES = {
    ConfirmCommand: {"pending"},
    WithdrawCommand: {"pending", "verified"},
    InvalidateCommand: {"pending", "verified"},
    EraseCommand: set(get_args(State)),
}
LEADS_TO = {ConfirmCommand: "verified", WithdrawCommand: "withdrawn", InvalidateCommand: "invalidated"}
DECIDED = [state for state in get_args(State) if state != "submitted"]


@pytest.mark.parametrize("state", DECIDED)
@pytest.mark.parametrize("command", CHANGES)
def test_a_command_is_taken_where_it_changes_something_or_was_carried_out(
    command: type[ChangeCommand], state: str
) -> None:
    taken = state in CHANGES[command] or state == LEADS_TO.get(command)
    assert (without_effect(command, state, carried_out=True) is None) == taken


@pytest.mark.parametrize("state", DECIDED)
@pytest.mark.parametrize("command", CHANGES)
def test_a_confirmation_of_what_counts_without_it_is_none(command: type[ChangeCommand], state: str) -> None:
    same = without_effect(command, state, carried_out=True) == without_effect(command, state, carried_out=False)
    assert same == ((command, state) != (ConfirmCommand, "verified"))


def test_the_reason_names_the_state_in_words() -> None:
    assert without_effect(ConfirmCommand, "withdrawn", carried_out=True) == "it was withdrawn"
    assert without_effect(WithdrawCommand, "rejected", carried_out=False) == "it was rejected"
    assert without_effect(ConfirmCommand, "verified", carried_out=False) == "it counts already"


@pytest.mark.parametrize("state", ["", "edited by hand"])
def test_a_state_that_somebody_wrote_by_hand_is_told_and_no_bug(state: str) -> None:
    assert without_effect(WithdrawCommand, state, carried_out=False) == f"it is {state}"
