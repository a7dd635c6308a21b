"""Errors of a transaction that conflicts with another process, or within the batch."""

from __future__ import annotations

from collections.abc import Mapping

from shared.runtime.failures import CANNOT_BE_APPLIED, Collision, InvalidRecord, SetAside


class LaneTaken(Collision):
    """Another verify wrote to one of our lanes meanwhile. Everything was rolled back.

    A retry finds what the other process decided. If that process owns the lane now, our commit of the offsets is refused
    and the batch given up. If every retry fails, there is no other process, and the consumer splits the batch.
    """


def set_aside(refused: Mapping[int, str]) -> None:
    """Set commands aside, if there are any.

    Args:
        refused: By index in the batch, why a command cannot be applied.

    Raises:
        SetAside: there are some.
    """
    if refused:
        raise SetAside({place: InvalidRecord(CANNOT_BE_APPLIED, why) for place, why in refused.items()})
