"""SQL of claiming: which rows become mails, which mails a sender takes, and which rows are withheld.

A row is mailed only if tally decided its milestone and its id is derived from its fields; a row that fails this affects no
other. A mail's numbers come from tally's record of the milestone, not from the row.

Rows may hold any value of their columns, because they can be edited by hand. So times are compared with what the settings
allow, numbers are clamped before they are incremented, and texts are cut before they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from services.notify.deliveries import Claim, Delivery, one_line
from services.notify.outbox.connection import AnyConnection
from services.notify.outbox.rules import Claimed, Open, Withheld, fold, withheld

_DUE: Final = "(due_at <= now() OR due_at > now() + interval '8 days')"
"""No setting makes a row wait for more than seven days, so a later time is not from notify and counts as due."""

_LEASE_OVER: Final = "(leased_until <= now() OR leased_until > now() + interval '2 days')"
"""A lease lasts a day at most (`_LONGEST_LEASE`); a later end comes from a clock set back, as after a failover."""

_LONGEST_LEASE: Final = timedelta(days=1)

_MOST_DOUBLINGS: Final = 8
"""Most doublings of a lease at takeovers: 5 minutes become 21 hours."""

_MOST_NUMBER: Final = "2147483646"
"""The largest integer that can be incremented."""

_TITLE: Final = 300
"""Characters of the longest title or name that an event can have; addresses are shorter."""

CLAIMABLE: Final = f"""
    (state = 'pending' AND chosen_at IS NOT NULL AND {_DUE})
    OR (state = 'sending' AND {_LEASE_OVER})
    OR (state = 'pending' AND chosen_at IS NULL AND {_DUE} AND NOT EXISTS (
            SELECT FROM deliveries AS mail
            WHERE mail.petition_id = deliveries.petition_id AND mail.target_id = deliveries.target_id
              AND mail.state IN ('pending', 'sending') AND mail.chosen_at IS NOT NULL))
"""
"""The rows that `claim` finds: mails to be sent, mails whose lease has expired, and deliveries that have collected long
enough to become a mail, unless an earlier mail to the same target is unfinished."""

_DECIDED: Final = """
    EXISTS (SELECT FROM milestones_decided AS decided
            WHERE decided.petition_id = deliveries.petition_id AND decided.threshold = deliveries.threshold)
"""


async def claim(
    connection: AnyConnection, *, limit: int, lease: UUID, lease_for: timedelta, without: Sequence[str]
) -> Claimed:
    """Choose the mails that are due, then take up to `limit` of all mails to be sent. Call it in a transaction."""
    barred = await _choose(connection, limit, without)
    mails, barred_mails = await _take(connection, limit, lease, lease_for, without)
    return Claimed(mails, [*barred, *barred_mails])


async def withhold(connection: AnyConnection, rows: Sequence[Withheld]) -> None:
    """Store these rows as failed. Deliveries folded into them collect again, because nothing is wrong with those."""
    if not rows:
        return
    barred = [row.delivery_id for row in rows]
    await connection.execute(
        "UPDATE deliveries SET state = 'failed', failed_for = 'withheld', folded_into = NULL,"
        " chosen_at = coalesce(chosen_at, now()), finished_at = now(), last_reply = words, lease = NULL, leased_until = NULL"
        " FROM unnest($1::uuid[], $2::text[]) AS barred (id, words) WHERE delivery_id = id",
        barred,
        [row.words for row in rows],
    )
    await unfold(connection, barred)


async def unfold(connection: AnyConnection, mails: Iterable[UUID]) -> None:
    """Let the deliveries that were folded into these mails collect again."""
    await connection.execute(
        "UPDATE deliveries SET state = 'pending', folded_into = NULL, finished_at = NULL, chosen_at = NULL, due_at = now()"
        " WHERE folded_into = ANY($1::uuid[]) AND state = 'folded'",
        list(mails),
    )


async def _choose(connection: AnyConnection, limit: int, without: Sequence[str]) -> list[Withheld]:
    """Turn deliveries that have collected for long enough into mails.

    The sender that locks the longest collected row of a petition and target chooses for that pair; others skip it. Only
    rows that are locked here are folded: one that is being written at the same time waits for the next mail.

    Returns:
        The rows that were withheld.
    """
    leaders = await connection.fetch(
        f"""
        SELECT petition_id, target_id FROM deliveries AS first
        WHERE state = 'pending' AND chosen_at IS NULL AND {_DUE} AND petition_id <> ALL($2::text[])
          AND NOT EXISTS (
              SELECT FROM deliveries AS other
              WHERE other.petition_id = first.petition_id AND other.target_id = first.target_id
                AND (   (other.state = 'pending' AND other.chosen_at IS NULL
                         AND (other.due_at, other.threshold) < (first.due_at, first.threshold))
                     OR (other.state IN ('pending', 'sending') AND other.chosen_at IS NOT NULL)))
        ORDER BY due_at LIMIT $1
        FOR UPDATE SKIP LOCKED
        """,  # noqa: S608  our own text
        limit,
        without,
    )
    if not leaders:
        return []
    rows = await connection.fetch(
        f"""
        SELECT delivery_id, petition_id, target_id, threshold, {_DECIDED} AS decided FROM deliveries
        WHERE (petition_id, target_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
          AND state = 'pending' AND chosen_at IS NULL
        FOR UPDATE SKIP LOCKED
        """,  # noqa: S608  our own text
        [row["petition_id"] for row in leaders],
        [row["target_id"] for row in leaders],
    )
    # Before folding: otherwise a mail would name an undecided milestone, or a good row would be lost with a bad one.
    genuine, barred = _apart(rows)
    await withhold(connection, barred)
    mails = fold(genuine)
    await connection.execute(
        "UPDATE deliveries SET chosen_at = now(), due_at = now() WHERE delivery_id = ANY($1::uuid[])", list(mails)
    )
    folded = [(other, mail) for mail, others in mails.items() for other in others]
    await connection.execute(
        "UPDATE deliveries SET state = 'folded', folded_into = mail, finished_at = now()"
        " FROM unnest($1::uuid[], $2::uuid[]) AS folding (other, mail) WHERE delivery_id = other",
        [other for other, _ in folded],
        [mail for _, mail in folded],
    )
    return barred


def _apart(rows: Iterable[asyncpg.Record]) -> tuple[list[Open], list[Withheld]]:
    genuine, barred = [], []
    for row in rows:
        one = Open(row["delivery_id"], row["petition_id"], row["target_id"], row["threshold"])
        reason = withheld(one, decided=row["decided"])
        if reason is None:
            genuine.append(one)
        else:
            barred.append(reason)
    return genuine, barred


async def _take(
    connection: AnyConnection, limit: int, lease: UUID, lease_for: timedelta, without: Sequence[str]
) -> tuple[list[Claim], list[Withheld]]:
    """Take mails that are due, and those whose lease has expired; the longest due first.

    Each takeover of a mail doubles its lease. Otherwise, if a mail crashed its sender each time after the server accepted
    it, the target would get a copy with every lease.

    Returns:
        The mails, and the rows that are not decided milestones' deliveries.
    """
    rows = await connection.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT delivery_id, petition_id, threshold, due_at AS was_due, state = 'sending' AS taken_over,
                   greatest(0, least(takeovers, {_MOST_NUMBER})) + (state = 'sending')::integer AS times FROM deliveries
            WHERE chosen_at IS NOT NULL
              AND ((state = 'pending' AND {_DUE}) OR (state = 'sending' AND {_LEASE_OVER}))
              AND petition_id <> ALL($6::text[])
            ORDER BY due_at LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            UPDATE deliveries SET state = 'sending', lease = $2, takeovers = times,
                                  maybe_taken = maybe_taken OR due.taken_over,
                                  leased_until = now() + least($3::interval * 2 ^ least(times, $4::integer), $5::interval),
                                  count = coalesce(decided.count, deliveries.count),
                                  reached_at = coalesce(decided.reached_at, deliveries.reached_at),
                                  -- The mail's date, for all its attempts.
                                  chosen_at = CASE WHEN chosen_at >= '2000-01-01' AND chosen_at < now() + interval '1 day'
                                                   THEN chosen_at ELSE now() END
            FROM due LEFT JOIN milestones_decided AS decided
                 ON decided.petition_id = due.petition_id AND decided.threshold = due.threshold
            WHERE deliveries.delivery_id = due.delivery_id
            RETURNING deliveries.delivery_id, deliveries.petition_id, deliveries.threshold, target_id, target_kind,
                      left(petition_title, $7) AS petition_title, left(organisation_name, $7) AS organisation_name,
                      left(target_name, $7) AS target_name, left(email, 2 * $7) AS email,
                      decided.count, decided.reached_at, decided.threshold IS NOT NULL AS decided,
                      chosen_at, greatest(0, least(attempts, {_MOST_NUMBER})) AS attempts, was_due, taken_over,
                      CASE WHEN deferred_since >= '2000-01-01' AND deferred_since < now() THEN now() - deferred_since
                           ELSE interval '0' END AS deferred_for
        )
        SELECT delivery_id, petition_id, threshold, target_id, target_kind, petition_title, organisation_name,
               target_name, email, count, reached_at, decided, chosen_at, attempts, taken_over, deferred_for
        FROM taken ORDER BY was_due, delivery_id
        """,  # noqa: S608  our own text
        limit,
        lease,
        lease_for,
        _MOST_DOUBLINGS,
        _LONGEST_LEASE,
        without,
        _TITLE,
    )
    _, barred = _apart(rows)
    await withhold(connection, barred)
    none = {row.delivery_id for row in barred}
    mails = {row["delivery_id"]: row for row in rows if row["delivery_id"] not in none}
    folded, barred_folded = await _folded(connection, mails)
    return [_claim(row, folded[mail]) for mail, row in mails.items()], [*barred, *barred_folded]


async def _folded(
    connection: AnyConnection, mails: dict[UUID, asyncpg.Record]
) -> tuple[dict[UUID, list[int]], list[Withheld]]:
    """The thresholds folded into each of these mails; folded rows that are not a decided milestone's delivery to that
    target are withheld."""
    thresholds: dict[UUID, list[int]] = {mail: [] for mail in mails}
    rows = await connection.fetch(
        f"""
        SELECT delivery_id, petition_id, target_id, threshold, folded_into, {_DECIDED} AS decided FROM deliveries
        WHERE folded_into = ANY($1::uuid[]) AND state = 'folded' ORDER BY threshold
        """,  # noqa: S608  our own text
        list(mails),
    )
    _, barred = _apart(rows)
    await withhold(connection, barred)
    none = {row.delivery_id for row in barred}
    for row in rows:
        mail = mails[row["folded_into"]]
        same = (row["petition_id"], row["target_id"]) == (mail["petition_id"], mail["target_id"])
        if same and row["delivery_id"] not in none:
            thresholds[row["folded_into"]].append(row["threshold"])
    return thresholds, barred


def _claim(row: asyncpg.Record, folded: Sequence[int]) -> Claim:
    return Claim(
        delivery=Delivery(
            delivery_id=row["delivery_id"],
            petition_id=row["petition_id"],
            threshold=row["threshold"],
            target_id=row["target_id"],
            # They were one line when they were written; the row may have been edited.
            petition_title=one_line(row["petition_title"]) or row["petition_id"],
            organisation_name=one_line(row["organisation_name"]) or row["petition_id"],
            target_name=one_line(row["target_name"]) or row["target_id"],
            target_kind=row["target_kind"],
            email=row["email"],
            count=row["count"],
            reached_at=row["reached_at"],
        ),
        folded=tuple(folded),
        chosen_at=row["chosen_at"],
        attempts=row["attempts"],
        deferred_for=row["deferred_for"],
        taken_over=row["taken_over"],
    )
