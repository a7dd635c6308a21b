"""The petition catalogue: all petitions in memory, in every service, fed from ``petitions.changed``.

It holds state and rules and does no I/O; `shared.kafka.broadcasting.catalogue_feed` fills it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import Enum

from shared.contract.events import PetitionChanged


class Admission(Enum):
    """Whether a petition takes signatures at a moment."""

    OPEN = "open"
    NOT_YET_OPEN = "not_yet_open"
    CLOSED = "closed"
    PAUSED = "paused"


def admission_at(petition: PetitionChanged, moment: datetime) -> Admission:
    """Return whether `petition` takes signatures at `moment`: from ``opens_at`` (inclusive) to ``closes_at`` (exclusive),
    and not while it is paused.

    A signature that was accepted before a pause counts: a caller that passes a signature's own time ignores
    `Admission.PAUSED`.
    """
    if petition.opens_at is not None and moment < petition.opens_at:
        return Admission.NOT_YET_OPEN
    if petition.closes_at is not None and moment >= petition.closes_at:
        return Admission.CLOSED
    return Admission.OPEN if petition.paused is None else Admission.PAUSED


class Catalogue:
    """The newest known state of every petition."""

    def __init__(self) -> None:
        self._petitions: dict[str, PetitionChanged] = {}

    def __len__(self) -> int:
        return len(self._petitions)

    def __iter__(self) -> Iterator[PetitionChanged]:
        return iter(self._petitions.values())

    def get(self, petition_id: str) -> PetitionChanged | None:
        """Return the petition, or None if it is unknown."""
        return self._petitions.get(petition_id)

    def published(self, petition_id: str) -> PetitionChanged | None:
        """Return the petition, or None if it is unknown or not published."""
        petition = self._petitions.get(petition_id)
        return petition if petition is not None and petition.published else None

    def changed_at(self, petition_id: str) -> datetime | None:
        """Return when the petition was last changed, or None if it is unknown."""
        petition = self._petitions.get(petition_id)
        return None if petition is None else petition.changed_at

    def apply(self, petition: PetitionChanged) -> None:
        """Store a petition's new state. Records of one petition arrive in order, so the last one applied is the newest."""
        self._petitions[petition.petition_id] = petition

    def remove(self, petition_id: str) -> None:
        """Remove a petition (a tombstone on the compacted topic)."""
        self._petitions.pop(petition_id, None)

    def of_organisation(self, slug: str) -> list[PetitionChanged]:
        """Return the organisation's published petitions, sorted by title."""
        found = [
            petition
            for petition in self._petitions.values()
            if petition.published and petition.organisation.slug == slug
        ]
        return sorted(found, key=lambda petition: (petition.title, petition.petition_id))
