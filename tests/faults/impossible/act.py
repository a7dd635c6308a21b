"""The type of impossible acts, and of the traces that they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from deploy.local.parts.service import ServiceName
from tests.faults.impossible.records import Written
from tests.faults.impossible.victim import Victim
from tests.faults.notes import Place, Planted

Part = Literal["postgres", "redis", "kafka"]


@dataclass(slots=True)
class Traces:
    """Traces of an act, for the checks that would find them.

    Attributes:
        planted: records that must become dead letters, with the reason of each.
        follow: reasons of dead letters that services may make of their own records about the petition.
        removed: (lane, position) of deleted ledger rows.
        leapt: (lane, position) of ledger rows that were moved far ahead: the positions right before them are empty.
    """

    planted: dict[Place, Planted] = field(default_factory=dict)
    follow: set[str] = field(default_factory=set)
    removed: set[tuple[int, int]] = field(default_factory=set)
    leapt: set[tuple[int, int]] = field(default_factory=set)

    def plant(self, written: Written, reason: str) -> None:
        """Note that a record must become a dead letter."""
        self.planted[written.place] = Planted(reason, written.digest)


Do = Callable[[Victim, Random, Traces], Awaitable[None]]
Undo = Callable[[Victim], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Act:
    """One impossible state.

    Attributes:
        name: begins with the part: ``redis-tally-deleted``.
        do: writes it, about its own petition. Raises an error of the part if that is away; then nothing happened.
        wakes: a service that reads the state only when it starts.
        undo: removes what no service can, after the petition has recovered in spite of it.
        touches: parts whose faults look the same: losing a key that stands for all of Redis looks like losing Redis.
    """

    name: str
    do: Do
    wakes: ServiceName | None = None
    touches: tuple[str, ...] = ()
    undo: Undo | None = None

    @property
    def part(self) -> str:
        """The part that it writes to."""
        return self.name.partition("-")[0]


class Acts:
    """Collects the acts of a module."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.found: list[Act] = []

    def add(
        self,
        name: str,
        *,
        wakes: ServiceName | None = None,
        touches: tuple[str, ...] = (),
        undo: Undo | None = None,
    ) -> Callable[[Do], Do]:
        """A decorator for an act; its docstring says what is impossible about it."""

        def added(do: Do) -> Do:
            self.put(name, do, wakes=wakes, touches=touches, undo=undo)
            return do

        return added

    def put(
        self,
        name: str,
        do: Do,
        *,
        wakes: ServiceName | None = None,
        touches: tuple[str, ...] = (),
        undo: Undo | None = None,
    ) -> None:
        """Add an act that is made from parameters."""
        self.found.append(Act(f"{self._part}-{name}", do, wakes=wakes, touches=touches, undo=undo))
