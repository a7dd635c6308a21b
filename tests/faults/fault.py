"""The type of faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.world import World


class NotPlayed(Exception):
    """The fault found nothing to hit, though the run tried to bring it about. The message says what was missing.

    It does not count as played, and the result of the run names it.
    """


class Broken(RuntimeError):
    """A check of the fault itself failed. The message is a violation."""


Act = Callable[["World", Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name in schedules, reports and on the command line: ``verify-killed``.
        touches: what it affects: names of services, ``kafka``, ``redis``, ``postgres``, ``smtp``, ``clock``. Faults
            that touch the same thing take turns, all others may overlap.
        act: injects the fault, keeps it for a while, removes it. Returns when the cause is gone and killed processes have
            been restarted, though they need not be ready yet. Removes the fault also when it is cancelled. All of its
            randomness comes from the `Random` that it is given.
    """

    kind: str
    touches: frozenset[str]
    act: Act
