"""Which commands about a signature can have an effect. No I/O.

verify decides when it processes the command. But a signature never returns to an earlier state, so a command that can no
longer have an effect is refused at once.
"""

from __future__ import annotations

from typing import Final

from shared.contract.events import ChangeCommand, ConfirmCommand, InvalidateCommand, WithdrawCommand
from shared.contract.states import SignatureState

_FROM: Final[dict[type[ChangeCommand], tuple[SignatureState, ...]]] = {
    ConfirmCommand: (SignatureState.PENDING,),
    WithdrawCommand: (SignatureState.PENDING, SignatureState.VERIFIED),
    InvalidateCommand: (SignatureState.PENDING, SignatureState.VERIFIED),
}
"""The states in which a command has an effect. An erasure has one in every state."""

_TO: Final[dict[type[ChangeCommand], SignatureState]] = {
    ConfirmCommand: SignatureState.VERIFIED,
    WithdrawCommand: SignatureState.WITHDRAWN,
    InvalidateCommand: SignatureState.INVALIDATED,
}

_WHY: Final[dict[str, str]] = {
    SignatureState.PENDING: "it still waits for its confirmation",
    SignatureState.VERIFIED: "it counts already",
    SignatureState.WITHDRAWN: "it was withdrawn",
    SignatureState.INVALIDATED: "it was struck out",
    SignatureState.REJECTED: "it was rejected",
    SignatureState.DUPLICATE: "it is a duplicate of one that is not known any more",
}


def without_effect(command: type[ChangeCommand], state: str, *, carried_out: bool) -> str | None:
    """Why a command can have no effect, to follow "This signature:"; None if it can have one, or is a replay.

    Args:
        command: The type of the command.
        state: The state of the signature; for a duplicate, that of the original.
        carried_out: Whether this same command changed a count before. A signature is verified by its confirmation, or
            because none is required; only in the first case is another confirmation a replay.
    """
    if command not in _FROM or state in _FROM[command]:
        return None
    if state == _TO[command] and (carried_out or command is not ConfirmCommand):
        return None
    return _WHY.get(state, f"it is {state}")
