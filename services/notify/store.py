"""All SQL of notify. Every statement is safe to repeat, and every change of a row states what it must have been before.

Killed before a commit, nothing happened; killed after one, the table says what is left to do. Two senders never hold one
row: claiming locks (``FOR UPDATE SKIP LOCKED``) and leaves a lease, and a result is written only under the lease it was
got with. The one exception is ``sent``, which is true whoever says it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from services.notify.deliveries import Claim, Delivery, Open, fold
from shared.events import MilestoneReached
from shared.failpoints import failpoint
from shared.postgres import Connection, Database

_Connection = Connection | PoolConnectionProxy


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is not finished, in the whole table."""

    collecting: int
    waiting: int
    sending: int
    oldest_due: timedelta
    """How long the most overdue of those that could go out now has been due; zero when there is none."""
    milestones_waiting: int


_CLAIMABLE = """
    (state = 'pending' AND chosen_at IS NOT NULL AND due_at <= now())
    OR (state = 'sending' AND leased_until <= now())
    OR (state = 'pending' AND chosen_at IS NULL AND due_at <= now() AND NOT EXISTS (
            SELECT FROM deliveries AS mail
            WHERE mail.petition_id = deliveries.petition_id AND mail.target_id = deliveries.target_id
              AND mail.state IN ('pending', 'sending') AND mail.chosen_at IS NOT NULL))
"""
"""What `claim` finds: mails to be sent, mails whose sender is gone, and what has collected long enough to be a mail,
unless an earlier mail to the same target is not finished."""


_MOST_DOUBLINGS = 8
"""Of a lease, at takeovers: 5 minutes become 21 hours."""


class DeliveryStore:
    """The deliveries, and the milestones that wait for their petition."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """A connection of the pool.

        Raises:
            ConnectionError: PostgreSQL is away.
        """
        try:
            async with self._database.pool.acquire() as connection:
                yield connection
        except asyncpg.InternalClientError as error:
            # PostgreSQL has told an idle connection that it shuts down and has not closed it yet. asyncpg has no better
            # name for using it in that moment; a moment later it would be a lost connection.
            if "another operation" not in str(error) and "failed" not in str(error):
                raise
            raise ConnectionError("PostgreSQL is closing the connection") from error

    # ---------------------------------------------------------------------------------------------- milestones come in

    async def add(
        self, deliveries: Sequence[Delivery], waiting: Sequence[MilestoneReached], *, due_in: timedelta
    ) -> int:
        """Write what a batch of milestones asks for; durable when this returns. What is there already stays as it is.

        Args:
            deliveries: Of milestones whose petition is known.
            waiting: Milestones whose petition is not.
            due_in: How long the deliveries collect further milestones.

        Returns:
            How many deliveries are new.
        """
        async with self._connection() as connection, connection.transaction():
            if waiting:
                await connection.execute(
                    "INSERT INTO milestones_waiting (petition_id, threshold, count, revision, reached_at)"
                    " SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[])"
                    " ON CONFLICT DO NOTHING",
                    [milestone.petition_id for milestone in waiting],
                    [milestone.threshold for milestone in waiting],
                    [milestone.count for milestone in waiting],
                    [milestone.revision for milestone in waiting],
                    [milestone.reached_at for milestone in waiting],
                )
            return await _insert(connection, deliveries, due_in)

    async def petitions_waited_for(self) -> list[str]:
        """The petitions that milestones wait for."""
        async with self._connection() as connection:
            rows = await connection.fetch("SELECT DISTINCT petition_id FROM milestones_waiting")
        return [row["petition_id"] for row in rows]

    async def release(
        self,
        petition_ids: Sequence[str],
        deliveries_of: Callable[[MilestoneReached], list[Delivery]],
        *,
        due_in: timedelta,
    ) -> int:
        """Turn the waiting milestones of these petitions into deliveries, in one transaction.

        Returns:
            How many deliveries are new.
        """
        async with self._connection() as connection, connection.transaction():
            rows = await connection.fetch(
                "DELETE FROM milestones_waiting WHERE petition_id = ANY($1::text[])"
                " RETURNING petition_id, threshold, count, revision, reached_at",
                list(petition_ids),
            )
            deliveries = [delivery for row in rows for delivery in deliveries_of(MilestoneReached(**dict(row)))]
            return await _insert(connection, deliveries, due_in)

    # ------------------------------------------------------------------------------------------------------- mails go out

    async def anything_due(self) -> bool:
        """Whether `claim` would find something. Asked before connecting to the SMTP server."""
        async with self._connection() as connection:
            found: bool = await connection.fetchval(
                f"SELECT EXISTS (SELECT FROM deliveries WHERE {_CLAIMABLE})"  # noqa: S608  our own text
            )
        return found

    async def claim(self, *, limit: int, lease: UUID, lease_for: timedelta) -> list[Claim]:
        """Choose the mails that are due, then take up to `limit` of all mails to be sent, under `lease`.

        One transaction: killed inside it, nothing is chosen and nothing held.
        """
        try:
            async with self._connection() as connection, connection.transaction():
                await _choose(connection, limit)
                claims = await _take(connection, limit, lease, lease_for)
                await failpoint("notify.before_claim")
                return claims
        except asyncpg.UniqueViolationError:
            # deliveries_one_mail_at_a_time: another sender chose a mail to one of these targets at this very moment.
            # Nothing was changed; the next look finds that mail and leaves its target alone.
            return []

    async def sent(self, delivery_id: UUID, reply: str) -> None:
        """A server took the mail. True whatever the row has become meanwhile: nobody shall send it again."""
        async with self._connection() as connection:
            await connection.execute(
                "UPDATE deliveries SET state = 'sent', attempts = attempts + 1, last_reply = $2, finished_at = now(),"
                " lease = NULL, leased_until = NULL WHERE delivery_id = $1 AND state <> 'sent'",
                delivery_id,
                reply,
            )

    async def failed(self, delivery_id: UUID, lease: UUID, reply: str) -> bool:
        """The mail will not be sent. Returns whether the lease still held."""
        return await self._conclude(
            "state = 'failed', attempts = attempts + 1, last_reply = $3, finished_at = now()",
            delivery_id,
            lease,
            reply,
        )

    async def deferred(self, delivery_id: UUID, lease: UUID, reply: str, *, retry_in: timedelta) -> bool:
        """The mail is to be tried again in a while. Returns whether the lease still held."""
        return await self._conclude(
            "state = 'pending', attempts = attempts + 1, last_reply = $3, due_at = now() + $4::interval,"
            " deferred_since = coalesce(deferred_since, now())",
            delivery_id,
            lease,
            reply,
            retry_in,
        )

    async def give_back(self, lease: UUID) -> None:
        """Let go of everything that is still held under `lease`; it is due at once, for anybody."""
        async with self._connection() as connection:
            await connection.execute(
                "UPDATE deliveries SET state = 'pending', lease = NULL, leased_until = NULL"
                " WHERE lease = $1 AND state = 'sending'",
                lease,
            )

    async def _conclude(self, changes: str, delivery_id: UUID, lease: UUID, *values: Any) -> bool:
        async with self._connection() as connection:
            status: str = await connection.execute(
                f"UPDATE deliveries SET {changes}, lease = NULL, leased_until = NULL"  # noqa: S608  our own text
                " WHERE delivery_id = $1 AND lease = $2 AND state = 'sending'",
                delivery_id,
                lease,
                *values,
            )
        return status == "UPDATE 1"

    # ----------------------------------------------------------------------------------------------------------- watching

    async def backlog(self) -> Backlog:
        """What is not finished."""
        async with self._connection() as connection:
            row = await connection.fetchrow(
                f"""
                SELECT count(*) FILTER (WHERE state = 'pending' AND chosen_at IS NULL) AS collecting,
                       count(*) FILTER (WHERE state = 'pending' AND chosen_at IS NOT NULL) AS waiting,
                       count(*) FILTER (WHERE state = 'sending') AS sending,
                       now() - min(due_at) FILTER (WHERE {_CLAIMABLE}) AS oldest_due,
                       (SELECT count(*) FROM milestones_waiting) AS milestones_waiting
                FROM deliveries WHERE state IN ('pending', 'sending')
                """  # noqa: S608  our own text
            )
        assert row is not None
        return Backlog(
            row["collecting"],
            row["waiting"],
            row["sending"],
            row["oldest_due"] or timedelta(),
            row["milestones_waiting"],
        )


async def _insert(connection: _Connection, deliveries: Sequence[Delivery], due_in: timedelta) -> int:
    if not deliveries:
        return 0
    status: str = await connection.execute(
        """
        INSERT INTO deliveries (delivery_id, petition_id, threshold, target_id, petition_title, organisation_name,
                                target_name, target_kind, email, count, reached_at, due_at)
        SELECT *, now() + $12::interval
        FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                    $7::text[], $8::text[], $9::text[], $10::bigint[], $11::timestamptz[])
        ON CONFLICT DO NOTHING
        """,
        [delivery.delivery_id for delivery in deliveries],
        [delivery.petition_id for delivery in deliveries],
        [delivery.threshold for delivery in deliveries],
        [delivery.target_id for delivery in deliveries],
        [delivery.petition_title for delivery in deliveries],
        [delivery.organisation_name for delivery in deliveries],
        [delivery.target_name for delivery in deliveries],
        [delivery.target_kind for delivery in deliveries],
        [delivery.email for delivery in deliveries],
        [delivery.count for delivery in deliveries],
        [delivery.reached_at for delivery in deliveries],
        due_in,
    )
    return int(status.rpartition(" ")[2])


async def _choose(connection: _Connection, limit: int) -> None:
    """Turn what has collected for long enough into mails.

    Whoever locks the longest collected row of a petition and target chooses for that pair; others skip it. Only rows
    that are locked here are folded: one that is being written at this moment waits for the next mail.
    """
    leaders = await connection.fetch(
        """
        SELECT petition_id, target_id FROM deliveries AS first
        WHERE state = 'pending' AND chosen_at IS NULL AND due_at <= now()
          AND NOT EXISTS (
              SELECT FROM deliveries AS other
              WHERE other.petition_id = first.petition_id AND other.target_id = first.target_id
                AND (   (other.state = 'pending' AND other.chosen_at IS NULL
                         AND (other.due_at, other.threshold) < (first.due_at, first.threshold))
                     OR (other.state IN ('pending', 'sending') AND other.chosen_at IS NOT NULL)))
        ORDER BY due_at LIMIT $1
        FOR UPDATE SKIP LOCKED
        """,
        limit,
    )
    if not leaders:
        return
    rows = await connection.fetch(
        """
        SELECT delivery_id, petition_id, target_id, threshold FROM deliveries
        WHERE (petition_id, target_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
          AND state = 'pending' AND chosen_at IS NULL
        FOR UPDATE SKIP LOCKED
        """,
        [row["petition_id"] for row in leaders],
        [row["target_id"] for row in leaders],
    )
    mails = fold(Open(**dict(row)) for row in rows)
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


async def _take(connection: _Connection, limit: int, lease: UUID, lease_for: timedelta) -> list[Claim]:
    """Take mails that are due, and those of senders whose lease has run out; the longest due first.

    A mail that was taken over is held twice as long each time. Were it the mail itself that crashes its senders, and after
    the server took it, then a target would otherwise get a copy with every lease.
    """
    rows = await connection.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT delivery_id, due_at AS was_due, state = 'sending' AS taken_over,
                   takeovers + (state = 'sending')::integer AS times FROM deliveries
            WHERE chosen_at IS NOT NULL
              AND ((state = 'pending' AND due_at <= now()) OR (state = 'sending' AND leased_until <= now()))
            ORDER BY due_at LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            UPDATE deliveries SET state = 'sending', lease = $2, takeovers = times,
                                  leased_until = now() + $3::interval * 2 ^ least(times, $4::integer)
            FROM due WHERE deliveries.delivery_id = due.delivery_id
            RETURNING deliveries.*, was_due, taken_over, coalesce(now() - deferred_since, '0') AS deferred_for,
                      ARRAY(SELECT threshold FROM deliveries AS other
                            WHERE other.folded_into = deliveries.delivery_id ORDER BY threshold) AS folded
        )
        SELECT * FROM taken ORDER BY was_due, delivery_id
        """,
        limit,
        lease,
        lease_for,
        _MOST_DOUBLINGS,
    )
    return [_claim(row) for row in rows]


def _claim(row: asyncpg.Record) -> Claim:
    return Claim(
        delivery=Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__}),
        folded=tuple(row["folded"]),
        chosen_at=row["chosen_at"],
        attempts=row["attempts"],
        deferred_for=row["deferred_for"],
        taken_over=row["taken_over"],
    )
