"""A petition for unit tests."""

from datetime import UTC, datetime
from typing import Any

from shared.contract.events import Organisation, PetitionChanged, Target

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def petition(petition_id: str = "save-the-harbour", **changes: Any) -> PetitionChanged:
    """A petition that is open, with `changes`."""
    return PetitionChanged(
        **{
            "petition_id": petition_id,
            "organisation": Organisation(slug="harbour-friends", name="Harbour Friends"),
            "title": "Save the harbour",
            "text": "It is a good harbour.",
            "targets": [
                Target(target_id="council", name="The Harbour Council", kind="body", email="council@example.org")
            ],
            "changed_at": NOON,
            **changes,
        }
    )
