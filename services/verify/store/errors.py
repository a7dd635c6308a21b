"""How a transaction fails when another process, or the batch itself, is in its way."""

from __future__ import annotations

from collections.abc import Mapping

from shared.runtime.failures import CANNOT_BE_APPLIED, Collision, InvalidRecord, SetAside


class LaneTaken(Collision):
    """Another verify wrote to one of our lanes meanwhile. Everything was rolled back.

    Decided again, what the other one decided is found as decided. If it owns the lane now, our commit of the offsets will
    be refused and the batch given up. If it never passes, there is no other one, and the consumer splits the batch.
    """


def set_aside(refused: Mapping[int, str]) -> None:
    """Set commands aside, if there are any: by index in the batch, why each cannot be applied.

    Raises:
        SetAside: there are some.
    """
    if refused:
        raise SetAside({place: InvalidRecord(CANNOT_BE_APPLIED, why) for place, why in refused.items()})
