"""What a status call tells, and to whom. Pure.

Anyone can submit anyone's address. If the status of that submission then said "duplicate", anyone could ask who signed.
So without credentials a duplicate reads as what a first signature would have become, and the truth is for partners and
the administrator.
"""

from __future__ import annotations

from services.ingest.web.schemas import SignatureStatus
from shared.contract.events import PetitionChanged
from shared.contract.states import SignatureState


def without_duplicates(status: SignatureStatus, petition: PetitionChanged | None) -> SignatureStatus:
    """The status as anyone may see it.

    Args:
        petition: The signature's petition, if it is still known: whether a first signature of it waits for a
            confirmation.
    """
    if status.status != SignatureState.DUPLICATE:
        return status
    waits = petition is not None and petition.policy.confirmation == "required"
    shown = SignatureState.PENDING if waits else SignatureState.VERIFIED
    return status.model_copy(update={"status": shown, "reason": None})


def without_erasures(status: SignatureStatus) -> SignatureStatus:
    """The status as anyone may see it: that somebody had a signature erased is theirs to tell."""
    return status if status.erased_at is None else status.model_copy(update={"erased_at": None})
