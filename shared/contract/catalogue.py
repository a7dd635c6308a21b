"""The petition catalogue: what every service knows of the petitions, held in memory, fed by ``petitions.changed``.

Pure state and rules; `shared.kafka.broadcasting.catalogue_feed` fills it.
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
    """Whether `petition` takes signatures at `moment`: from ``opens_at`` on, up to but not at ``closes_at``, and not while
    it is paused.

    What was accepted before a pause counts: whoever judges by a signature's own time lets `Admission.PAUSED` pass.
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
        """The petition, or None when it is unknown."""
        return self._petitions.get(petition_id)

    def published(self, petition_id: str) -> PetitionChanged | None:
        """The petition, or None when it is unknown or not to be seen."""
        petition = self._petitions.get(petition_id)
        return petition if petition is not None and petition.published else None

    def changed_at(self, petition_id: str) -> datetime | None:
        """When the petition was last changed, or None when it is unknown."""
        petition = self._petitions.get(petition_id)
        return None if petition is None else petition.changed_at

    def apply(self, petition: PetitionChanged) -> None:
        """Take over a petition's new state. The topic has one order per petition, so the last one applied is newest."""
        self._petitions[petition.petition_id] = petition

    def remove(self, petition_id: str) -> None:
        """Forget a petition (a tombstone on the compacted topic)."""
        self._petitions.pop(petition_id, None)

    def of_organisation(self, slug: str) -> list[PetitionChanged]:
        """The organisation's petitions that are published, by title."""
        found = [
            petition
            for petition in self._petitions.values()
            if petition.published and petition.organisation.slug == slug
        ]
        return sorted(found, key=lambda petition: (petition.title, petition.petition_id))
