"""SQL of new signatures: each is inserted once, and the indexes decide which of a signer's signatures counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from services.verify.deciding.outcome import Gathered
from services.verify.deciding.rules import Judgement, Reason, SubmittedCommand
from services.verify.store.errors import LaneTaken
from shared.contract.events import SignCommand
from shared.contract.states import SignatureState

INSERT_SIGNATURES = """
INSERT INTO signatures (signature_id, signer_key, petition_id, state, reason, country, submitted_at)
SELECT signature_id, signer_key, petition_id, state, reason, country, submitted_at
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
     WITH ORDINALITY AS s (signature_id, signer_key, petition_id, state, reason, country, submitted_at, place)
ORDER BY place  -- of two signatures of one signer in a batch, the first stands
ON CONFLICT DO NOTHING
RETURNING signature_id
"""

# The original of a duplicate is decided together with it, and never changes.
INSERT_DUPLICATES = """
INSERT INTO signatures (signature_id, signer_key, petition_id, state, reason, country, submitted_at, duplicate_of)
SELECT signature_id, signer_key, petition_id, state, reason, country, submitted_at,
       (SELECT s.signature_id FROM signatures s
        WHERE s.signer_key = d.signer_key AND s.state IN ('pending', 'verified', 'invalidated') LIMIT 1)
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
     AS d (signature_id, signer_key, petition_id, state, reason, country, submitted_at)
ON CONFLICT DO NOTHING
RETURNING signature_id
"""

# One row per wanted signature; state is null where it is not stored.
STORED_SIGNATURES = """
SELECT wanted.signature_id, s.signer_key, s.petition_id, s.state, s.reason, s.submitted_at, s.erased_at,
       EXISTS (SELECT FROM ledger WHERE ledger.event_id = wanted.signature_id) AS in_ledger
FROM unnest($1::uuid[]) AS wanted (signature_id)
LEFT JOIN signatures s ON s.signature_id = wanted.signature_id
"""


async def apply_signs(
    connection: Any, signs: list[SubmittedCommand], judgements: Mapping[UUID, Judgement], gathered: Gathered
) -> None:
    """Store sign commands of different signatures, in their order, and gather the outcome of each.

    Raises:
        LaneTaken: another verify has decided one of them at the same moment.
    """
    rows = [_signature_row(submission, judgements[submission.event_id]) for submission in signs]
    inserted = await _insert_signatures(connection, INSERT_SIGNATURES, rows)
    new = signs if len(inserted) == len(signs) else [each for each in signs if each.event_id in inserted]
    for submission in new:
        gathered.note_new(submission, judgements[submission.event_id])
    if len(new) == len(signs):
        return
    left = [submission for submission in signs if submission.event_id not in inserted]
    # A command that was not inserted is a replay (its id is stored) or a duplicate of its signer's other signature.
    stored = {
        row["signature_id"]: row
        for row in await connection.fetch(STORED_SIGNATURES, [submission.event_id for submission in left])
    }
    # A signature in the ledger is not a duplicate: its row was deleted, and must not be inserted again.
    known = {number for number, row in stored.items() if row["in_ledger"] or row["state"] is not None}
    verdict = Judgement(SignatureState.DUPLICATE, Reason.ALREADY_SIGNED)
    duplicates = [_signature_row(submission, verdict) for submission in left if submission.event_id not in known]
    recorded = await _insert_signatures(connection, INSERT_DUPLICATES, duplicates)
    if len(recorded) < len(duplicates):
        # If retries do not help, something in the database drops rows without an error: a trigger, a policy.
        raise LaneTaken("another verify decided a signature of this batch meanwhile, or its row is refused")
    for submission in left:
        if submission.event_id in known:
            gathered.note_known(submission, stored[submission.event_id])
        else:
            gathered.note_duplicate(submission)


async def _insert_signatures(connection: Any, statement: str, rows: list[tuple[Any, ...]]) -> set[UUID]:
    """Insert the rows that do not conflict. Returns the ids that were inserted."""
    if not rows:
        return set()
    columns = [list(column) for column in zip(*rows, strict=True)]
    return {row["signature_id"] for row in await connection.fetch(statement, *columns)}


def _signature_row(submission: SubmittedCommand, judgement: Judgement) -> tuple[Any, ...]:
    command = submission.command
    assert isinstance(command, SignCommand)
    return (
        command.signature_id,
        submission.signer_key,
        command.petition_id,
        judgement.state,
        judgement.reason,
        command.country,
        submission.moment,
    )
