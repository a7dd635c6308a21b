"""What an impossible act is, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from deploy.local.service import ServiceName
from tests.faults.impossible.victim import Victim
from tests.faults.notes import Place

Part = Literal["postgres", "redis", "kafka"]


@dataclass(slots=True)
class Traces:
    """What an act has written, for the checks that would find it.

    Attributes:
        letters: records that have to become dead letters: where they are, and the reasons that may be given.
        removed: (lane, position) of ledger rows that are not there any more.
        leapt: (lane, position) of ledger rows that were put far ahead: the positions right before them are empty.
        petitions: other petitions that it named.
    """

    letters: dict[Place, tuple[str, ...]] = field(default_factory=dict)
    removed: set[tuple[int, int]] = field(default_factory=set)
    leapt: set[tuple[int, int]] = field(default_factory=set)
    petitions: set[str] = field(default_factory=set)


Do = Callable[[Victim, Random, Traces], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """One state that cannot be.

    Attributes:
        name: begins with the part: ``redis-tally-deleted``.
        do: writes it, about a petition of its own. Raises an error of the part if that is away; nothing then happened.
        wakes: a service that looks at the state only when it starts.
        shows: log events, one of which tells people of it. Empty: it heals without a word, or nothing needs healing.
    """

    name: str
    do: Do
    wakes: ServiceName | None = None
    shows: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """The part that it writes to."""
        return self.name.partition("-")[0]


class Acts:
    """Collects the acts of a module."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.found: list[Act] = []

    def add(self, name: str, *, wakes: ServiceName | None = None, shows: tuple[str, ...] = ()) -> Callable[[Do], Do]:
        """A decorator for an act; its docstring says what cannot be about it."""

        def added(do: Do) -> Do:
            self.put(name, do, wakes=wakes, shows=shows)
            return do

        return added

    def put(self, name: str, do: Do, *, wakes: ServiceName | None = None, shows: tuple[str, ...] = ()) -> None:
        """Add an act that is made from parameters."""
        self.found.append(Act(f"{self._part}-{name}", do, wakes=wakes, shows=shows))
