"""One example of every event, and the golden files made from them.

``python -m tests.contract.golden_events`` writes the files of events that are new. A golden file that exists is history: it
is only replaced with ``--replace NAME``, for an event whose type got a new version number.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from shared.contract.events import (
    ConfirmCommand,
    EraseCommand,
    Event,
    InvalidateCommand,
    MilestoneReached,
    Organisation,
    PetitionChanged,
    Policy,
    SignatureRejected,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    TallyUpdated,
    Target,
    WithdrawCommand,
)

GOLDEN = Path(__file__).parent / "golden"

_MOMENT = datetime(2026, 11, 22, 10, 42, 7, 125000, tzinfo=UTC)
_SIGNATURE = UUID("019ab7f2-6d1e-7c3a-9f00-5d2c8a11e0b4")
_CHANGE = {"signature_id": _SIGNATURE, "petition_id": "night-bus", "requested_at": _MOMENT}
_FACT = {
    "signature_id": _SIGNATURE,
    "petition_id": "night-bus",
    "lane": 3,
    "position": 1207,
    "country": "NL",
    "signed_at": _MOMENT,
    "occurred_at": _MOMENT,
}

EXAMPLES: tuple[Event, ...] = (
    SignCommand(
        signature_id=_SIGNATURE,
        petition_id="night-bus",
        email="ann@mail.example",
        name="Ann Example",
        country="NL",
        postcode="1234 AB",
        comment="The last bus leaves too early.",
        consent=True,
        submitted_at=_MOMENT,
    ),
    ConfirmCommand(**_CHANGE),
    WithdrawCommand(**_CHANGE),
    InvalidateCommand(**_CHANGE),
    EraseCommand(**_CHANGE, actor="Kim, helpdesk", reason="Request 4711 of 22 November"),
    SignatureVerified(**_FACT),
    SignatureRevoked(**_FACT, cause="withdrawn"),
    SignatureRejected(
        signature_id=_SIGNATURE,
        petition_id="night-bus",
        outcome="duplicate",
        reason="already_signed",
        submitted_at=_MOMENT,
    ),
    PetitionChanged(
        petition_id="night-bus",
        organisation=Organisation(slug="neighbours", name="Neighbours"),
        title="A night bus",
        text="For those who work late.",
        targets=[Target(target_id="transport", name="The Head of Transport", kind="person", email="head@town.example")],
        milestones=[100, 1000],
        opens_at=_MOMENT,
        closes_at=None,
        policy=Policy(countries=["NL"], blocked_email_domains=["throwaway.example"], require_consent=True),
        changed_at=_MOMENT,
    ),
    TallyUpdated(
        petition_id="night-bus",
        count=1207,
        revision=1211,
        countries={"NL": 1200, "BE": 7},
        minutes={"2026-11-22T10:42Z": 31},
        earlier=1176,
        updated_at=_MOMENT,
    ),
    MilestoneReached(petition_id="night-bus", threshold=1000, count=1003, revision=1007, reached_at=_MOMENT),
)


def golden_file(event: type[Event]) -> Path:
    """Where the golden file of an event is."""
    return GOLDEN / f"{event.TYPE}.json"


def golden(example: Event) -> dict[str, Any]:
    """The content of a golden file: an event as it is written today, and its schema."""
    return {"event": json.loads(example.model_dump_json()), "schema": type(example).model_json_schema()}


def main(arguments: list[str]) -> None:
    """Write what is missing, and what `--replace` names."""
    for example in EXAMPLES:
        file = golden_file(type(example))
        if not file.exists() or (arguments[:1] == ["--replace"] and type(example).__name__ in arguments):
            file.write_text(json.dumps(golden(example), indent=2) + "\n", encoding="utf-8")
            print(f"{file.name}: written")


if __name__ == "__main__":
    main(sys.argv[1:])
