"""What a status call discloses, and to whom. No I/O.

Anyone can submit anyone's address. If the status of that submission said "duplicate", anyone could find out who signed. So
without credentials, a duplicate is shown with the state that a first signature would have. Partners and administrators see
the real state.
"""

from __future__ import annotations

from services.ingest.web.schemas import SignatureStatus
from shared.contract.events import PetitionChanged
from shared.contract.states import SignatureState


def without_duplicates(status: SignatureStatus, petition: PetitionChanged | None) -> SignatureStatus:
    """The status for callers without credentials, with duplicates disguised.

    Args:
        status: The real status.
        petition: The signature's petition, if it is still known: it decides whether a first signature would be pending.
    """
    if status.status != SignatureState.DUPLICATE:
        return status
    waits = petition is not None and petition.policy.confirmation == "required"
    shown = SignatureState.PENDING if waits else SignatureState.VERIFIED
    return status.model_copy(update={"status": shown, "reason": None})


def without_erasures(status: SignatureStatus) -> SignatureStatus:
    """The status for callers without credentials, without the erasure, which is private to the signer."""
    return status if status.erased_at is None else status.model_copy(update={"erased_at": None})
