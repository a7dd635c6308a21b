"""Every event that Groundswell puts on a topic, as strict, versioned models.

Events are CloudEvents 1.0 in Kafka binary mode: the attributes are ``ce_*`` headers (`shared.kafka.records.headers`), the
value is the model's JSON. A model's ``TYPE`` is its CloudEvents type; the number at its end rises only when old readers
cannot read the new form. Adding fields does not raise it: readers ignore fields that they do not know.

Only the commands on ``signatures.submitted`` carry personal data.
"""

from __future__ import annotations

from shared.contract.events.base import CountryCode, EmailText, Event, Language, PetitionId, PetitionTime, Slug
from shared.contract.events.petitions import (
    MOST_VERSION,
    Confirmation,
    Organisation,
    Pause,
    PetitionChanged,
    PetitionState,
    Policy,
    Target,
    TargetKind,
)
from shared.contract.events.signatures import (
    ChangeCommand,
    Command,
    ConfirmCommand,
    CountedFact,
    EraseCommand,
    InvalidateCommand,
    SignatureRejected,
    SignatureRevoked,
    SignatureVerified,
    SignCommand,
    WithdrawCommand,
)
from shared.contract.events.tallies import MilestoneReached, TallyUpdated, minute_of

__all__ = [
    "MOST_VERSION",
    "ChangeCommand",
    "Command",
    "ConfirmCommand",
    "Confirmation",
    "CountedFact",
    "CountryCode",
    "EmailText",
    "EraseCommand",
    "Event",
    "InvalidateCommand",
    "Language",
    "MilestoneReached",
    "Organisation",
    "Pause",
    "PetitionChanged",
    "PetitionId",
    "PetitionState",
    "PetitionTime",
    "Policy",
    "SignCommand",
    "SignatureRejected",
    "SignatureRevoked",
    "SignatureVerified",
    "Slug",
    "TallyUpdated",
    "Target",
    "TargetKind",
    "WithdrawCommand",
    "minute_of",
]
