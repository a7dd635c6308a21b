"""What verify publishes, as records: byte for byte the same at every replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from services.verify.store import LedgerRow, Refused
from shared.events import CountedFact, SignatureRejected, SignatureRevoked, SignatureVerified, SignCommand
from shared.identity import command_id
from shared.kafka.headers import event_headers
from shared.kafka.record import Record

SOURCE: Final = "/groundswell/verify"


def fact_record(row: LedgerRow) -> Record:
    """The fact of a ledger row.

    The JSON is put together here, and is what the event's model would make of it: this runs once per signature, and the
    model costs 8 µs of a signature's 60. No field can need escaping: ids, slugs, codes of two letters, numbers, times.
    """
    event: type[CountedFact] = SignatureVerified if row.kind == "verified" else SignatureRevoked
    petition_id = row.petition_id
    signed_at, occurred_at = row.signed_at.astimezone(UTC), row.occurred_at.astimezone(UTC)
    cause = "" if row.kind == "verified" else f',"cause":"{row.kind}"'
    value = (
        f'{{"signature_id":"{row.signature_id}","petition_id":"{petition_id}","lane":{row.lane},'
        f'"position":{row.position},"country":"{row.country}","signed_at":"{_rfc3339(signed_at)}",'
        f'"occurred_at":"{_rfc3339(occurred_at)}","delta":{row.delta}{cause}}}'
    )
    headers = event_headers(event, event_id=row.event_id, source=SOURCE, subject=petition_id, time=occurred_at)
    return Record(petition_id.encode(), value.encode(), headers)


def _rfc3339(moment: datetime) -> str:
    """A moment in UTC as the models write it."""
    return moment.isoformat().replace("+00:00", "Z")


def rejection_record(refused: Refused) -> Record:
    """The event that says that a submission does not count, the same at every replay."""
    command = refused.submission.command
    assert isinstance(command, SignCommand)
    submitted_at = refused.submitted_at.astimezone(UTC)
    event = SignatureRejected(
        signature_id=command.signature_id,
        petition_id=command.petition_id,
        outcome=refused.outcome,
        reason=refused.reason,
        submitted_at=submitted_at,
    )
    headers = event_headers(
        SignatureRejected,
        event_id=command_id(command.signature_id, SignatureRejected.TYPE),
        source=SOURCE,
        subject=command.petition_id,
        time=submitted_at,
    )
    return Record(command.petition_id.encode(), event.model_dump_json().encode(), headers)
