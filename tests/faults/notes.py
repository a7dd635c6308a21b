"""Records that the faults of a run write to topics themselves, so that the checks can tell them from lost ones."""

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
"""Prefix of the ids of sacrificial petitions, whose data faults spoil by hand; no petition of a run has it."""

BY_HAND: Final = "x-written-by-hand"
"""A header of records that no service wrote: observers skip them, except for their dead letters."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A record that must become a dead letter.

    Attributes:
        reason: the reason that its dead letter must have.
        digest: of key, value and headers; None when the dead letter cannot hold the record, and must say so.
    """

    reason: str
    digest: str | None


@dataclass(slots=True)
class Spoiled:
    """What faults wrote by hand about sacrificial petitions; the checks expect exactly that.

    Attributes:
        removed: (lane, position) of ledger rows that were deleted.
        leapt: (lane, position) of ledger rows that were moved far ahead: the positions before them are empty.
        letters: by petition, the reasons of the dead letters that may follow.
    """

    removed: set[tuple[int, int]] = field(default_factory=set)
    leapt: set[tuple[int, int]] = field(default_factory=set)
    letters: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class RunNotes:
    """Notes of one run.

    Attributes:
        petitions: the run's petitions that may be named by records that faults write; the first is the busiest.
        starts: the end of each partition of a topic when the run began.
        planted: expected dead letters.
        earlier: expected dead letters of earlier runs, whose records may be redelivered.
        accepted: signatures that a fault wrote to the topic itself, bypassing ingest; each counts like one that was
            answered with 202.
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
    """The notes of the current run in `world`."""
    return _notes.setdefault(world, RunNotes())


def digest_of(key: bytes | None, value: bytes | None, headers: Headers) -> str:
    """A digest of a whole record. None and empty give different digests, and so do different orders of headers."""
    whole = hashlib.sha256()
    for name, content in (("key", key), ("value", value), *headers):
        whole.update(f"{name}\0{-1 if content is None else len(content)}\0".encode())
        whole.update(content or b"")
    return whole.hexdigest()
