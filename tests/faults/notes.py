"""What the faults of a run put on topics themselves: only with this can a check tell their records from lost ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tests.faults.sending.surge import Accepted
    from tests.faults.world import World

Place = tuple[str, int, int]
"""Where a record is: topic, partition, offset."""

Headers = Sequence[tuple[str, bytes | None]]

SACRIFICE: Final = "sacrifice-"
"""The id of every petition that is there to be spoiled begins like this; no petition of a run does."""

BY_HAND: Final = "x-written-by-hand"
"""A header of records that no service has written: observers pass over them, but for their dead letters."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A record that has to end as a dead letter.

    Attributes:
        reason: what its dead letter has to say.
        digest: of key, value and headers; None when the dead letter cannot hold it, and has to say so.
    """

    reason: str
    digest: str | None


@dataclass(slots=True)
class Spoiled:
    """What was written by hand about petitions that are there to be spoiled; exactly that is no surprise.

    Attributes:
        removed: (lane, position) of ledger rows that were taken away.
        leapt: (lane, position) of ledger rows that were put far ahead: the positions before them are empty.
        letters: by petition, the reasons of the dead letters that may follow of it.
    """

    removed: set[tuple[int, int]] = field(default_factory=set)
    leapt: set[tuple[int, int]] = field(default_factory=set)
    letters: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class RunNotes:
    """Of one run.

    Attributes:
        petitions: the run's petitions that may be named by records that faults write; the first is the busiest.
        starts: where each partition of a topic ended when the run began.
        planted: dead letters to come.
        earlier: the same of earlier runs, whose records may be delivered again.
        accepted: signatures that a fault put on the topic itself, beside ingest; each counts like one that was answered
            202.
        spoiled: what was written by hand so far, in this run and those before it.
        cause_moment: brings about what a fault waits for; see `tests.faults.breaking.moments`.
    """

    petitions: tuple[str, ...] = ()
    starts: dict[str, dict[int, int]] = field(default_factory=dict)
    planted: dict[Place, Planted] = field(default_factory=dict)
    earlier: dict[Place, Planted] = field(default_factory=dict)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    spoiled: Spoiled = field(default_factory=Spoiled)
    cause_moment: Callable[[], None] | None = None


_notes: WeakKeyDictionary[World, RunNotes] = WeakKeyDictionary()


def begin_notes(world: World, petitions: Sequence[str], starts: dict[str, dict[int, int]]) -> RunNotes:
    """New notes for the run that begins in `world` now."""
    before = notes_of(world)
    _notes[world] = RunNotes(
        tuple(petitions), starts, earlier={**before.earlier, **before.planted}, spoiled=before.spoiled
    )
    return _notes[world]


def notes_of(world: World) -> RunNotes:
    """The notes of the run that is under way in `world`."""
    return _notes.setdefault(world, RunNotes())


def digest_of(key: bytes | None, value: bytes | None, headers: Headers) -> str:
    """A fingerprint of a whole record; None and empty differ, and so does the order of headers."""
    whole = hashlib.sha256()
    for name, content in (("key", key), ("value", value), *headers):
        whole.update(f"{name}\0{-1 if content is None else len(content)}\0".encode())
        whole.update(content or b"")
    return whole.hexdigest()
