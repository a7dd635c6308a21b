"""Failed deliveries and their corrections: types, and the rule that finds a correction. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from services.notify.deliveries import address_of, one_line
from services.notify.mail.refusals import Cause
from shared.contract.events import PetitionChanged, Target


class Because(StrEnum):
    """Why a delivery became due again: the column ``requeued_for``."""

    ADDRESS = "address"
    """Its target has another address."""
    TARGET = "target"
    """The petition addresses its target again, perhaps under another id."""
    COMMAND = "command"
    """An operator said so."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Deliveries to one target at one address that failed for the same cause."""

    petition_id: str
    target_id: str
    email: str
    cause: Cause
    target_names: tuple[str, ...]
    """The target's names when the milestones came."""


@dataclass(frozen=True, slots=True)
class Correction:
    """Failed deliveries, and the petition's present target for them."""

    failed: Failed
    target: Target
    because: Because


@dataclass(frozen=True, slots=True)
class Requeued:
    """Deliveries that became due again at the same time and for the same reason."""

    petition_id: str
    target_id: str
    because: Because
    by: str | None
    """Who gave the command."""
    deliveries: int


@dataclass(frozen=True, slots=True)
class Left:
    """A failed delivery that is not retried, and why."""

    delivery_id: UUID
    why: str


@dataclass(frozen=True, slots=True)
class Retried:
    """The result of a retry for one petition."""

    again: list[UUID]
    """Deliveries due again, including those folded into the failed mails."""
    left: list[Left]


def correction_of(failed: Failed, petition: PetitionChanged) -> Correction | None:
    """The correction of failed deliveries by the petition's present state; None if there is none.

    A target is identified by its id. If the petition no longer addresses that id, the target may have been removed and added
    under another one: then it is the target with the same name, or with the same address if the address was not the cause.
    """
    target = next((one for one in petition.targets if one.target_id == failed.target_id), None)
    if target is not None:
        if failed.cause is Cause.TARGET:
            return Correction(failed, target, Because.TARGET)
        return Correction(failed, target, Because.ADDRESS) if address_of(target) != failed.email else None
    names = {_folded(name) for name in failed.target_names}
    others = [one for one in petition.targets if _folded(one.name) in names or _same_address(one, failed)]
    if len(others) != 1 or (failed.cause is Cause.ADDRESS and address_of(others[0]) == failed.email):
        return None
    return Correction(failed, others[0], Because.TARGET)


def _folded(name: str) -> str:
    return one_line(name).casefold()


def _same_address(target: Target, failed: Failed) -> bool:
    return failed.cause is Cause.TARGET and address_of(target) == failed.email
