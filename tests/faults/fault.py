"""What a fault is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.world import World


class NotPlayed(Exception):
    """There was nothing for the fault to hit, though the run tried to bring it about. The message says what was missing.

    It does not count as played, and the result of the run names it.
    """


class Broken(RuntimeError):
    """What the fault itself looks at is not as it has to be. The message says what: it is a violation."""


Act = Callable[["World", Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name in schedules, reports and on the command line: ``verify-killed``.
        touches: what it works on: names of services, ``kafka``, ``redis``, ``postgres``, ``smtp``, ``clock``. Faults
            that touch the same thing take turns, all others may overlap.
        act: injects the fault, lets it last, lifts it. Returns when the cause is gone and what was killed has been
            started again, though it need not be ready yet. Lifts the fault also when it is cancelled. All of its
            randomness comes from the `Random` that it is given.
    """

    kind: str
    touches: frozenset[str]
    act: Act
