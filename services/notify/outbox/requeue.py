"""SQL of requeueing: making failed deliveries due again, after a correction or on an operator's command.

Contract
--------
* Only ``failed`` deliveries become due, under the petition's lock: of two processes that find the same rows, one changes
  them. The new address is written in the same statement, so one correction is one requeue, also after a crash.
* Milestones of one target that are requeued together collect, as those of a surge do, and share one mail.
* A mail that a server may have accepted is sent to the same address only unchanged (`maybe_taken`), so that a copy can be
  recognised. Two such mails to one target are sent one after the other.
* An address that got, or will get, a milestone's mail as another target's gets no second one.
* A requeue is counted and logged once, by the first notify that finds it (`note`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from services.notify.deliveries import Delivery, address_of, delivery_id, one_line
from services.notify.mail.refusals import ALREADY_TOLD, MOVED, Cause, cause_in
from services.notify.outbox.connection import AnyConnection
from services.notify.outbox.failures import Because, Correction, Failed, Left, Requeued, Retried
from services.notify.outbox.writing import write
from shared.contract.events import Target

ONE_AT_A_TIME: Final = (
    "the server may have taken this mail, so it is only sent as it was, and another mail to this target is under way;"
    " retry it when that has ended"
)

_AGAIN: Final = """
    state = 'pending', failed_for = NULL, finished_at = NULL, due_at = now(), attempts = 0, deferred_since = NULL,
    email = coalesce($2, email), requeued_at = now(), requeued_for = $3, requeued_by = $4, requeue_noted = false
"""


async def classify(connection: AnyConnection, petition_id: str | None = None) -> None:
    """Set ``failed_for`` in up to 1000 rows of versions without it; of one petition, or of all."""
    rows = await connection.fetch(
        "SELECT delivery_id, last_reply FROM deliveries WHERE state = 'failed' AND failed_for IS NULL"
        " AND ($1::text IS NULL OR petition_id = $1) ORDER BY delivery_id LIMIT 1000 FOR UPDATE SKIP LOCKED",
        petition_id,
    )
    await connection.execute(
        "UPDATE deliveries SET failed_for = cause FROM unnest($1::uuid[], $2::text[]) AS found (id, cause)"
        " WHERE delivery_id = id AND state = 'failed' AND failed_for IS NULL",
        [row["delivery_id"] for row in rows],
        [cause_in(row["last_reply"] or "").value for row in rows],
    )


async def correctable(connection: AnyConnection) -> list[Failed]:
    """The failed deliveries that another state of their petition may make due again."""
    rows = await connection.fetch(
        "SELECT petition_id, target_id, email, failed_for, array_agg(DISTINCT target_name) AS target_names FROM deliveries"
        " WHERE state = 'failed' AND failed_for IN ('address', 'target')"
        " GROUP BY petition_id, target_id, email, failed_for ORDER BY petition_id, target_id"
    )
    return [
        Failed(row["petition_id"], row["target_id"], row["email"], Cause(row["failed_for"]), tuple(row["target_names"]))
        for row in rows
    ]


async def correct(connection: AnyConnection, petition_id: str, corrections: Iterable[Correction]) -> Retried:
    """Make the failed deliveries of these corrections due again. Call it in a transaction."""
    await _lock(connection, petition_id)
    done = Retried([], [])
    for correction in corrections:
        failed, target = correction.failed, correction.target
        mails = await connection.fetch(
            "SELECT delivery_id, target_id, email, maybe_taken FROM deliveries"
            " WHERE petition_id = $1 AND target_id = $2 AND email = $3 AND state = 'failed' AND failed_for = $4"
            " ORDER BY finished_at, delivery_id FOR UPDATE",
            petition_id,
            failed.target_id,
            failed.email,
            failed.cause,
        )
        if target.target_id != failed.target_id:
            again, left = await _move(connection, petition_id, mails, target)
        else:
            again, left = await _requeue(
                connection, petition_id, mails, email=address_of(target), because=correction.because
            )
        done.again.extend(again)
        done.left.extend(left)
    return done


async def retry(
    connection: AnyConnection, petition_id: str, *, delivery: UUID | None = None, by: str | None = None
) -> Retried:
    """Make deliveries due again that a server refused: those of a petition, or one of it. Call it in a transaction.

    Raises:
        asyncpg.UniqueViolationError: a sender chose a mail to one of the targets at the same moment; try again.
    """
    await _lock(connection, petition_id)
    await classify(connection, petition_id)
    mails = await connection.fetch(
        "SELECT delivery_id, target_id, email, maybe_taken FROM deliveries"
        " WHERE petition_id = $1 AND ($2::uuid IS NULL OR delivery_id = $2)"
        "   AND state = 'failed' AND failed_for IN ('address', 'server') ORDER BY finished_at, delivery_id FOR UPDATE",
        petition_id,
        delivery,
    )
    return Retried(*await _requeue(connection, petition_id, mails, email=None, because=Because.COMMAND, by=by))


async def note(connection: AnyConnection) -> list[Requeued]:
    """Requeues that no process has counted yet. They are marked as counted, so each is returned once."""
    rows = await connection.fetch(
        "WITH found AS (SELECT delivery_id FROM deliveries WHERE NOT requeue_noted LIMIT 1000 FOR UPDATE SKIP LOCKED),"
        " noted AS (UPDATE deliveries SET requeue_noted = true FROM found WHERE deliveries.delivery_id = found.delivery_id"
        "           RETURNING petition_id, target_id, requeued_for, requeued_by, requeued_at)"
        " SELECT petition_id, target_id, requeued_for, requeued_by, count(*) AS deliveries FROM noted"
        " WHERE requeued_for IS NOT NULL GROUP BY petition_id, target_id, requeued_for, requeued_by, requeued_at"
    )
    return [
        Requeued(
            row["petition_id"], row["target_id"], Because(row["requeued_for"]), row["requeued_by"], row["deliveries"]
        )
        for row in rows
    ]


async def _lock(connection: AnyConnection, petition_id: str) -> None:
    """Allow one requeue of a petition at a time, so that two targets that get the same address are noticed."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('requeue/' || $1, 0))", petition_id)


async def _requeue(
    connection: AnyConnection,
    petition_id: str,
    mails: Sequence[asyncpg.Record],
    *,
    email: str | None,
    because: Because,
    by: str | None = None,
) -> tuple[list[UUID], list[Left]]:
    """Make these failed mails due again, at `email` or at their own addresses.

    Returns:
        The deliveries that are due, and those that are left as they are.
    """
    open_to = {
        row["target_id"]
        for row in await connection.fetch(
            "SELECT target_id FROM deliveries"
            " WHERE petition_id = $1 AND chosen_at IS NOT NULL AND state IN ('pending', 'sending')",
            petition_id,
        )
    }
    collect, as_they_were, left = [], [], []
    for mail in mails:
        if not mail["maybe_taken"] or email not in (None, mail["email"]):
            collect.append(mail["delivery_id"])
        elif mail["target_id"] in open_to:
            left.append(Left(mail["delivery_id"], ONE_AT_A_TIME))
        else:
            open_to.add(mail["target_id"])
            as_they_were.append(mail["delivery_id"])
    same = await connection.fetch(
        f"UPDATE deliveries SET {_AGAIN} WHERE delivery_id = ANY($1::uuid[]) RETURNING delivery_id",  # noqa: S608  our own text
        as_they_were,
        email,
        because,
        by,
    )
    anew = await connection.fetch(
        f"""
        UPDATE deliveries SET {_AGAIN}, folded_into = NULL, chosen_at = NULL, maybe_taken = false
        FROM (SELECT delivery_id AS id, petition_id, target_id FROM deliveries WHERE delivery_id = ANY($1::uuid[])) AS mail
        WHERE deliveries.petition_id = mail.petition_id AND deliveries.target_id = mail.target_id
          AND (delivery_id = mail.id OR (folded_into = mail.id AND state = 'folded'))
        RETURNING delivery_id
        """,  # noqa: S608  our own text
        collect,
        email,
        because,
        by,
    )
    told = await _withhold_told(connection, [row["delivery_id"] for row in anew])
    left += [Left(one, ALREADY_TOLD) for one in told]
    again = [row["delivery_id"] for row in (*same, *anew) if row["delivery_id"] not in told]
    return again, left


async def _withhold_told(connection: AnyConnection, deliveries: Sequence[UUID]) -> set[UUID]:
    """Let those of these deliveries fail again whose address got, or will get, the milestone's mail as another target's.

    Of two among them with the same address, the one with the lower id stays.
    """
    rows = await connection.fetch(
        """
        UPDATE deliveries AS again SET state = 'failed', failed_for = 'address', last_reply = $2, chosen_at = now(),
                                       finished_at = now(), requeue_noted = true
        WHERE delivery_id = ANY($1::uuid[]) AND EXISTS (
            SELECT FROM deliveries AS other LEFT JOIN deliveries AS mail ON mail.delivery_id = other.folded_into
            WHERE other.petition_id = again.petition_id AND other.threshold = again.threshold
              AND other.delivery_id <> again.delivery_id
              AND NOT (other.delivery_id = ANY($1::uuid[]) AND other.delivery_id > again.delivery_id)
              AND lower(coalesce(mail.email, other.email)) = lower(again.email)
              AND coalesce(mail.state, other.state) IN ('sent', 'pending', 'sending'))
        RETURNING delivery_id
        """,
        list(deliveries),
        ALREADY_TOLD,
    )
    return {row["delivery_id"] for row in rows}


async def _move(
    connection: AnyConnection, petition_id: str, mails: Sequence[asyncpg.Record], target: Target
) -> tuple[list[UUID], list[Left]]:
    """Write new deliveries for `target` in place of those that failed under its former id. Returns the same as `_requeue`.

    If it already has deliveries for all of these milestones, it is another target of the same name: nothing is changed.
    """
    failed = [mail["delivery_id"] for mail in mails]
    rows = await connection.fetch(
        "SELECT threshold, petition_title, organisation_name, count, reached_at FROM deliveries"
        " WHERE delivery_id = ANY($1::uuid[]) OR (folded_into = ANY($1::uuid[]) AND state = 'folded')",
        failed,
    )
    deliveries = [
        Delivery(
            delivery_id=delivery_id(petition_id, row["threshold"], target.target_id),
            petition_id=petition_id,
            threshold=row["threshold"],
            target_id=target.target_id,
            petition_title=row["petition_title"],
            organisation_name=row["organisation_name"],
            target_name=one_line(target.name) or target.target_id,
            target_kind=target.kind,
            email=address_of(target),
            count=row["count"],
            reached_at=row["reached_at"],
        )
        for row in rows
    ]
    new = (await write(connection, deliveries, timedelta())).created
    if not new:
        return [], []
    await connection.execute(
        "UPDATE deliveries SET requeued_at = now(), requeued_for = 'target', requeue_noted = false"
        " WHERE delivery_id = ANY($1::uuid[])",
        new,
    )
    await connection.execute(
        "UPDATE deliveries SET failed_for = 'moved', last_reply = $2 WHERE delivery_id = ANY($1::uuid[])", failed, MOVED
    )
    told = await _withhold_told(connection, new)
    return [one for one in new if one not in told], [Left(one, ALREADY_TOLD) for one in told]
