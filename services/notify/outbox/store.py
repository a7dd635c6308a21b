"""The store of deliveries: due mails, their results, failures, and the backlog.

It holds SQL only; longer statements are in `writing`, `claiming` and `requeue`. Every statement is idempotent, and every
change of a row checks its previous state.

After a crash before a commit, nothing has changed; after a commit, the table has the remaining work. Two senders never hold
one row: claiming locks rows (``FOR UPDATE SKIP LOCKED``) and sets a lease, and a result is written only under the lease with
which it was obtained. The one exception is ``sent``, which is true under any lease.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from services.notify.deliveries import NO_MAIL
from services.notify.mail.refusals import Cause
from services.notify.outbox import claiming, requeue
from services.notify.outbox.claiming import CLAIMABLE
from services.notify.outbox.connection import connected
from services.notify.outbox.failures import Correction, Failed, Requeued, Retried
from services.notify.outbox.rules import Claimed, Withheld
from services.notify.outbox.writing import OPEN
from shared.postgres import Database
from shared.runtime.failpoints import failpoint


@dataclass(frozen=True, slots=True)
class Backlog:
    """The unfinished deliveries of the whole table."""

    collecting: int
    waiting: int
    sending: int
    oldest_due: timedelta
    """How long the most overdue delivery that could be sent now has been due; zero if there is none."""
    milestones_waiting: int
    """Milestones of unknown petitions."""


_ONE_MORE: Final = "attempts = least(greatest(attempts, 0), 2147483646) + 1"

_OPEN_PETITIONS: Final = f"""
WITH RECURSIVE walk AS (
    (SELECT petition_id FROM deliveries WHERE {OPEN} ORDER BY petition_id LIMIT 1)
    UNION ALL
    SELECT (SELECT petition_id FROM deliveries WHERE {OPEN} AND deliveries.petition_id > walk.petition_id
            ORDER BY petition_id LIMIT 1)
    FROM walk WHERE walk.petition_id IS NOT NULL
)
SELECT petition_id FROM walk WHERE petition_id IS NOT NULL
"""  # noqa: S608  our own text
"""Walks the index from petition to petition instead of reading all open rows."""


class DeliveryStore:
    """The deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------------------------------------------- mails go out

    async def open_petitions(self) -> list[str]:
        """The petitions with unfinished deliveries."""
        async with connected(self._database) as connection:
            rows = await connection.fetch(_OPEN_PETITIONS)
        return [row["petition_id"] for row in rows]

    async def anything_due(self, without: Sequence[str] = ()) -> bool:
        """Whether `claim` would find something. Asked before connecting to the SMTP server.

        Args:
            without: Petitions that are left out.
        """
        async with connected(self._database) as connection:
            found: bool = await connection.fetchval(
                f"SELECT EXISTS (SELECT FROM deliveries WHERE petition_id <> ALL($1::text[]) AND ({CLAIMABLE}))",  # noqa: S608  our own text
                without,
            )
        return found

    async def claim(self, *, limit: int, lease: UUID, lease_for: timedelta, without: Sequence[str] = ()) -> Claimed:
        """Choose the mails that are due, then take up to `limit` of all mails to be sent, under `lease`.

        One transaction: killed inside it, nothing is chosen and nothing held.

        Args:
            limit: Most mails to take.
            lease: The id of the sender's new lease.
            lease_for: The duration of the lease.
            without: Petitions that are left out.
        """
        try:
            async with connected(self._database) as connection, connection.transaction():
                found = await claiming.claim(connection, limit=limit, lease=lease, lease_for=lease_for, without=without)
                await failpoint("notify.before_claim")
                return found
        except asyncpg.UniqueViolationError:
            # deliveries_one_mail_at_a_time: another sender chose a mail to one of these targets at the same moment.
            # Nothing was changed; the next claim finds that mail and skips its target.
            return Claimed([], [])

    async def readdressed(self, delivery_id: UUID, lease: UUID, email: str) -> bool:
        """Record the address to which a mail is sent instead of its row's. Returns whether the lease still held."""
        async with connected(self._database) as connection:
            status: str = await connection.execute(
                "UPDATE deliveries SET email = $3 WHERE delivery_id = $1 AND lease = $2 AND state = 'sending'",
                delivery_id,
                lease,
                email,
            )
        return status == "UPDATE 1"

    async def sent(self, delivery_id: UUID, reply: str, email: str) -> None:
        """Record that a server accepted the mail, whatever the row's state is by now, so that it is not sent again.

        Not if its target was corrected meanwhile: then it was sent to the wrong address `email`.
        """
        async with connected(self._database) as connection:
            await connection.execute(
                f"UPDATE deliveries SET state = 'sent', {_ONE_MORE}, last_reply = $2, finished_at = now(), folded_into = NULL,"  # noqa: S608  our own text
                " failed_for = NULL, chosen_at = coalesce(chosen_at, now()), lease = NULL, leased_until = NULL"
                " WHERE delivery_id = $1 AND state <> 'sent'"
                " AND (email = $3 OR requeued_for IS NULL OR requeued_for = 'command')",
                delivery_id,
                reply,
                email,
            )

    async def failed(
        self, delivery_id: UUID, lease: UUID, reply: str, *, cause: Cause, maybe_taken: bool = False
    ) -> bool:
        """Record that the mail failed. Returns whether the lease still held.

        Args:
            delivery_id: The id of the mail's delivery.
            lease: The id of the sender's lease.
            reply: The text for ``last_reply``.
            cause: Why it failed.
            maybe_taken: Whether the server may have accepted it nevertheless.
        """
        return await self._conclude(
            f"state = 'failed', {_ONE_MORE}, last_reply = $3, finished_at = now(), failed_for = $4,"
            " maybe_taken = maybe_taken OR $5",
            delivery_id,
            lease,
            reply,
            cause,
            maybe_taken,
        )

    async def deferred(
        self, delivery_id: UUID, lease: UUID, reply: str, *, retry_in: timedelta, maybe_taken: bool = False
    ) -> bool:
        """Defer the mail for `retry_in`. Returns whether the lease still held. Other arguments as those of `failed`."""
        return await self._conclude(
            f"state = 'pending', {_ONE_MORE}, last_reply = $3, due_at = now() + $4::interval,"
            " deferred_since = CASE WHEN deferred_since < now() THEN deferred_since ELSE now() END,"
            " maybe_taken = maybe_taken OR $5",
            delivery_id,
            lease,
            reply,
            retry_in,
            maybe_taken,
        )

    async def give_back(self, lease: UUID, *, keep: Sequence[UUID] = ()) -> None:
        """Release everything that is still held under `lease`; it is due at once, for any sender.

        Args:
            lease: The id of the sender's lease.
            keep: Deliveries that stay held until the lease expires.
        """
        async with connected(self._database) as connection:
            await connection.execute(
                "UPDATE deliveries SET state = 'pending', lease = NULL, leased_until = NULL"
                " WHERE lease = $1 AND state = 'sending' AND delivery_id <> ALL($2::uuid[])",
                lease,
                keep,
            )

    async def _conclude(self, changes: str, delivery_id: UUID, lease: UUID, *values: Any) -> bool:
        async with connected(self._database) as connection:
            status: str = await connection.execute(
                f"UPDATE deliveries SET {changes}, lease = NULL, leased_until = NULL"  # noqa: S608  our own text
                " WHERE delivery_id = $1 AND lease = $2 AND state = 'sending'",
                delivery_id,
                lease,
                *values,
            )
        return status == "UPDATE 1"

    # ------------------------------------------------------------------------------------------- failed and due again

    async def correctable(self) -> list[Failed]:
        """The failed deliveries that another state of their petition may make due again."""
        async with connected(self._database) as connection:
            async with connection.transaction():
                await requeue.classify(connection)
            return await requeue.correctable(connection)

    async def correct(self, petition_id: str, corrections: Sequence[Correction]) -> Retried:
        """Make the failed deliveries of these corrections of one petition due again, in one transaction."""
        try:
            async with connected(self._database) as connection, connection.transaction():
                done = await requeue.correct(connection, petition_id, corrections)
                await failpoint("notify.before_requeue")
                return done
        except asyncpg.UniqueViolationError:
            # deliveries_one_mail_at_a_time: a sender chose a mail to one of these targets at the same moment. Nothing was
            # changed; the next round finds that mail, and skips what has to wait for it.
            return Retried([], [])

    async def note_requeued(self) -> list[Requeued]:
        """Requeues that no process has counted yet: each is returned once, to one process."""
        async with connected(self._database) as connection, connection.transaction():
            return await requeue.note(connection)

    async def failed_by_cause(self) -> dict[Cause, int]:
        """The number of failed deliveries by cause, without those that moved on to another id."""
        async with connected(self._database) as connection:
            rows = await connection.fetch(
                "SELECT failed_for, count(*) AS number FROM deliveries WHERE state = 'failed' AND failed_for <> 'moved'"
                " GROUP BY failed_for"
            )
        return {Cause(row["failed_for"]): row["number"] for row in rows}

    # ----------------------------------------------------------------------------------------------------------- watching

    async def backlog(self, without: Sequence[str] = (), unpublished: Sequence[str] = ()) -> Backlog:
        """The unfinished deliveries.

        Args:
            without: Petitions that are unknown, or not published. Their deliveries wait, as milestones do.
            unpublished: Petitions that are not published: that their milestones wait is intended.
        """
        async with connected(self._database) as connection:
            row = await connection.fetchrow(
                f"""
                SELECT count(*) FILTER (WHERE state = 'pending' AND chosen_at IS NULL) AS collecting,
                       count(*) FILTER (WHERE state = 'pending' AND chosen_at IS NOT NULL) AS waiting,
                       count(*) FILTER (WHERE state = 'sending') AS sending,
                       now() - min(due_at) FILTER (WHERE due_at >= '2000-01-01' AND due_at < now()
                                                     AND petition_id <> ALL($1::text[]) AND ({CLAIMABLE})) AS oldest_due,
                       (SELECT count(*) FROM milestones_waiting WHERE refused_at IS NULL AND petition_id <> ALL($2::text[]))
                       + count(DISTINCT (petition_id, threshold))
                         FILTER (WHERE petition_id = ANY($1::text[]) AND petition_id <> ALL($2::text[]))
                           AS milestones_waiting
                FROM deliveries WHERE {OPEN}
                """,  # noqa: S608  our own text
                without,
                unpublished,
            )
        assert row is not None
        return Backlog(
            row["collecting"],
            row["waiting"],
            row["sending"],
            row["oldest_due"] or timedelta(),
            row["milestones_waiting"],
        )

    async def withhold_strays(self) -> list[Withheld]:
        """Store strays as failed: deliveries folded into a row that is not a mail to their target (themselves, a circle, or
        nothing). It is not known whether a mail has named such a milestone, so none is sent."""
        async with connected(self._database) as connection, connection.transaction():
            rows = await connection.fetch(
                """
                SELECT delivery_id, petition_id, target_id, threshold FROM deliveries
                WHERE state = 'folded' AND NOT EXISTS (
                    SELECT FROM deliveries AS mail
                    WHERE mail.delivery_id = deliveries.folded_into AND mail.state <> 'folded'
                      AND mail.petition_id = deliveries.petition_id AND mail.target_id = deliveries.target_id)
                FOR UPDATE SKIP LOCKED
                """
            )
            strays = [
                Withheld(row["delivery_id"], row["petition_id"], row["target_id"], row["threshold"], NO_MAIL)
                for row in rows
            ]
            await claiming.withhold(connection, strays)
            return strays
