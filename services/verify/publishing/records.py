"""The records that verify publishes, byte for byte the same at every replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from services.verify.deciding.outcome import LedgerRow, RefusedSignature
from shared.contract.events import CountedFact, SignatureRejected, SignatureRevoked, SignatureVerified, SignCommand
from shared.contract.identity import command_id
from shared.contract.states import SignatureState
from shared.kafka.records.headers import event_headers
from shared.kafka.records.record import Record

SOURCE: Final = "/groundswell/verify"

_VERIFIED: Final = SignatureState.VERIFIED


def fact_record(row: LedgerRow) -> Record:
    """The fact of a ledger row.

    The JSON is written by hand, equal to that of the event's model: this runs once per signature, and the model would take
    8 µs of a signature's 60. No field can need escaping: ids, slugs, codes of two letters, numbers, times.
    """
    event: type[CountedFact] = SignatureVerified if row.kind == _VERIFIED else SignatureRevoked
    petition_id = row.petition_id
    occurred_at = _iso(row.occurred_at)
    # The event of a sign command has the signature's id and time, so these are formatted once.
    signed_at = occurred_at if row.signed_at == row.occurred_at else _iso(row.signed_at)
    event_id = str(row.event_id)
    signature_id = event_id if row.signature_id is row.event_id else str(row.signature_id)
    cause = "" if row.kind == _VERIFIED else f',"cause":"{row.kind}"'
    value = (
        f'{{"signature_id":"{signature_id}","petition_id":"{petition_id}","lane":{row.lane},'
        f'"position":{row.position},"country":"{row.country}","signed_at":"{_zulu(signed_at)}",'
        f'"occurred_at":"{_zulu(occurred_at)}","delta":{row.delta}{cause}}}'
    )
    headers = event_headers(event, event_id=event_id, source=SOURCE, subject=petition_id, time=occurred_at)
    return Record(petition_id.encode(), value.encode(), headers)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _zulu(utc: str) -> str:
    """A moment as the models write it."""
    return utc.replace("+00:00", "Z")


def rejection_record(refused: RefusedSignature) -> Record:
    """The ``SignatureRejected`` event of a submission that does not count, the same at every replay."""
    command = refused.submission.command
    assert isinstance(command, SignCommand)
    submitted_at = refused.submitted_at.astimezone(UTC)
    event = SignatureRejected(
        signature_id=command.signature_id,
        petition_id=command.petition_id,
        outcome=refused.outcome,  # type: ignore[arg-type]  # a member is its own text
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
