"""The petitions of the demo, read from `petitions.toml`, and how many supporters each must end with."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from shared.contract.events import PetitionState, Target

FEWEST_SUPPORTERS = 3
"""The minimum for a petition when the demo is scaled down: enough for a signer, a repeat, and a milestone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPetition:
    """One petition and the outcome that the demo expects for it."""

    petition_id: str
    supporters: int
    """Signatures that must stand in the end."""
    state: PetitionState
    """The body of its PUT."""

    @property
    def reached(self) -> tuple[int, ...]:
        """The milestones that must have been reached in the end, each once."""
        return tuple(milestone for milestone in self.state.milestones if milestone <= self.supporters)

    @property
    def targets(self) -> list[Target]:
        """Who must get a mail about each of them."""
        return self.state.targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Petitions:
    """Everything that the surge is about."""

    open: tuple[DemoPetition, ...]
    """The organisation's seven."""
    closed: DemoPetition
    """A closed petition of another organisation."""
    unknown: tuple[str, ...]
    """Ids of petitions that do not exist."""

    @property
    def organisation_slug(self) -> str:
        """The organisation whose page shows the seven."""
        return self.open[0].state.organisation.slug

    @property
    def supporters(self) -> int:
        """The organisation's supporters in the end."""
        return sum(petition.supporters for petition in self.open)

    @property
    def all(self) -> tuple[DemoPetition, ...]:
        """Every petition that exists."""
        return (*self.open, self.closed)


def load_petitions(scale: float = 1.0) -> Petitions:
    """The petitions, with supporters and milestones multiplied by `scale` (for tests; 0 < scale <= 1).

    Raises:
        ValueError: `scale` is out of range.
    """
    if not 0 < scale <= 1:
        raise ValueError(f"the scale must be above 0 and at most 1, not {scale}")
    document = _document()
    return Petitions(
        open=tuple(
            _petition({"organisation": document["organisation"], **entry}, scale) for entry in document["petitions"]
        ),
        closed=_petition(document["closed"], scale),
        unknown=tuple(document["unknown"]["petition_ids"]),
    )


def scaled(count: int, scale: float, least: int) -> int:
    """Return `count` times `scale`, but at least `least` (or `count`, if that is less)."""
    return max(min(count, least), round(count * scale))


def _petition(entry: dict[str, Any], scale: float) -> DemoPetition:
    body = {key: value for key, value in entry.items() if key not in {"petition_id", "supporters"}}
    body["text"] = _unwrapped(entry["text"])
    body["milestones"] = sorted({scaled(milestone, scale, 1) for milestone in entry["milestones"]})
    return DemoPetition(
        petition_id=entry["petition_id"],
        supporters=scaled(entry.get("supporters", 0), scale, FEWEST_SUPPORTERS),
        state=PetitionState.model_validate(body),
    )


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph: the file is wrapped for editing, and a page wraps by itself."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("petitions.toml").read_text(encoding="utf-8"))
