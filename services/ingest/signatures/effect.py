"""Which commands about a signature can have an effect. Pure.

verify decides, when the command's turn comes. But what can have no effect whatever comes first is said at once: a signature
never goes back to a state that it was in.
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
"""The states in which a command changes something. An erasure does in every state."""

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
    """Why a command can have no effect, to be read after "This signature:"; None if it can, or is the same one again.

    Args:
        state: Of the signature that the command is about: of a duplicate, the one that it is a duplicate of.
        carried_out: Whether this very command changed a count before. A signature is verified by its confirmation, or
            because none was asked for; only the first makes another confirmation the same one again.
    """
    if command not in _FROM or state in _FROM[command]:
        return None
    if state == _TO[command] and (carried_out or command is not ConfirmCommand):
        return None
    return _WHY.get(state, f"it is {state}")
