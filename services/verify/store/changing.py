"""SQL of changes: confirming, withdrawing, invalidating and erasing stored signatures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from services.verify.deciding.outcome import Gathered, LedgerRow
from services.verify.deciding.rules import SubmittedCommand
from shared.contract.events import ConfirmCommand, EraseCommand, InvalidateCommand, WithdrawCommand
from shared.contract.states import SignatureState

# A change command's petition and signer are checked against the row that it names. The row of an erased signature has no
# signer, and a command that was under way at the erasure still has the old key, so any key is accepted. A command that names
# a duplicate applies to the original.
_CONFIRM = """
UPDATE signatures s SET state = 'verified', decided_at = now()
FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
JOIN signatures named ON named.signature_id = w.signature_id AND named.petition_id = w.petition_id
                     AND (named.signer_key = w.signer_key OR named.erased_at IS NOT NULL)
WHERE s.signature_id = coalesce(named.duplicate_of, named.signature_id) AND s.petition_id = w.petition_id
  AND s.state = 'pending'
RETURNING w.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, 'pending' AS state_before
"""

_REVOKE = """
WITH standing AS (
    SELECT w.place, s.signature_id, s.state AS state_before
    FROM unnest($1::uuid[], $2::text[], $3::uuid[]) WITH ORDINALITY AS w (signature_id, petition_id, signer_key, place)
    JOIN signatures named ON named.signature_id = w.signature_id AND named.petition_id = w.petition_id
                         AND (named.signer_key = w.signer_key OR named.erased_at IS NOT NULL)
    JOIN signatures s ON s.signature_id = coalesce(named.duplicate_of, named.signature_id)
                     AND s.petition_id = w.petition_id
    WHERE s.state IN ('pending', 'verified')
    FOR UPDATE OF s
)
UPDATE signatures s SET state = $4, decided_at = now()
FROM standing WHERE s.signature_id = standing.signature_id
RETURNING standing.place, s.signature_id, s.petition_id, s.country, s.submitted_at, s.state, standing.state_before
"""

# State, country and time stay: the count, its break-downs and a later withdrawal need them. The row stays: its id makes a
# repeated request a replay. A signature is erased together with all its duplicates, whichever is named: each has the
# signer's key.
_ERASE = """
WITH named AS (
    SELECT w.place, w.actor, w.reason, w.requested_at, s.petition_id,
           coalesce(s.duplicate_of, s.signature_id) AS first, s.signature_id
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[])
         WITH ORDINALITY AS w (signature_id, petition_id, signer_key, actor, reason, requested_at, place)
    JOIN signatures s ON s.signature_id = w.signature_id AND s.petition_id = w.petition_id
                     AND s.signer_key = w.signer_key AND s.erased_at IS NULL
), theirs AS (
    SELECT named.*, named.first AS other FROM named
    UNION SELECT named.*, named.signature_id FROM named
    UNION SELECT named.*, d.signature_id FROM named JOIN signatures d ON d.duplicate_of = named.first
), erased AS (
    UPDATE signatures s SET signer_key = gen_random_uuid(), erased_at = now()
    FROM theirs
    WHERE s.signature_id = theirs.other AND s.petition_id = theirs.petition_id AND s.erased_at IS NULL
    RETURNING theirs.place, s.signature_id, s.petition_id, theirs.actor, theirs.reason, theirs.requested_at, s.erased_at
), noted AS (
    INSERT INTO erasures (signature_id, petition_id, actor, reason, requested_at, erased_at)
    SELECT signature_id, petition_id, actor, reason, requested_at, erased_at FROM erased
)
SELECT place, signature_id FROM erased
"""

_WHOSE = """
SELECT named.signature_id, named.petition_id, named.signer_key, named.erased_at,
       coalesce(target.state, named.state) AS state
FROM signatures named LEFT JOIN signatures target ON target.signature_id = named.duplicate_of
WHERE named.signature_id = ANY($1::uuid[])
"""

_DUPLICATE_OF = """
SELECT signature_id, duplicate_of FROM signatures WHERE signature_id = ANY($1::uuid[]) AND duplicate_of IS NOT NULL
"""


async def apply_changes(connection: Any, changes: list[SubmittedCommand], gathered: Gathered) -> None:
    """Carry out commands about signatures of different signers, and gather the outcome of each."""
    for command_type, statement, arguments in (
        (ConfirmCommand, _CONFIRM, ()),
        (WithdrawCommand, _REVOKE, (SignatureState.WITHDRAWN,)),
        (InvalidateCommand, _REVOKE, (SignatureState.INVALIDATED,)),
    ):
        wanted = [change for change in changes if isinstance(change.command, command_type)]
        if not wanted:
            continue
        changed = await connection.fetch(statement, *_claims_of(wanted), *arguments)
        for row in changed:
            gathered.note_change(wanted[row["place"] - 1], row)
        await _explain_the_rest(connection, wanted, {row["place"] for row in changed}, gathered)
    await _apply_erasures(
        connection, [change for change in changes if isinstance(change.command, EraseCommand)], gathered
    )


async def _apply_erasures(connection: Any, wanted: list[SubmittedCommand], gathered: Gathered) -> None:
    if not wanted:
        return
    commands = [change.command for change in wanted if isinstance(change.command, EraseCommand)]
    words = [(command.actor, command.reason, change.moment) for command, change in zip(commands, wanted, strict=True)]
    erased = await connection.fetch(_ERASE, *_claims_of(wanted), *(list(column) for column in zip(*words, strict=True)))
    gathered.erased += len(erased)
    done = {row["place"] for row in erased}
    await _explain_the_rest(connection, wanted, done, gathered, {row["signature_id"] for row in erased})


def _claims_of(changes: Sequence[SubmittedCommand]) -> tuple[list[UUID], list[str], list[UUID]]:
    """The signature ids, petition ids and signer keys of commands, as columns."""
    return (
        [change.command.signature_id for change in changes],
        [change.command.petition_id for change in changes],
        [change.signer_key for change in changes],
    )


async def _explain_the_rest(
    connection: Any,
    wanted: list[SubmittedCommand],
    done: set[int],
    gathered: Gathered,
    erased_here: Collection[UUID] = (),
) -> None:
    """Look up the signatures of the commands that changed nothing, and note why."""
    left = [change for place, change in enumerate(wanted, 1) if place not in done]
    if not left:
        return
    ids = [change.command.signature_id for change in left]
    rows = {row["signature_id"]: row for row in await connection.fetch(_WHOSE, ids)}
    for change in left:
        gathered.note_unchanged(change, rows.get(change.command.signature_id), erased_here=erased_here)


async def duplicates_named(
    connection: Any, batch: Sequence[SubmittedCommand], rows: Sequence[LedgerRow]
) -> dict[UUID, UUID]:
    """Of the signatures that replayed commands name, the duplicates, each with the original."""
    about = {row.event_id: row.signature_id for row in rows}
    named = {
        one.command.signature_id
        for one in batch
        if about and about.get(one.event_id, one.command.signature_id) != one.command.signature_id
    }
    if not named:  # nearly always
        return {}
    return dict(await connection.fetch(_DUPLICATE_OF, list(named)))
