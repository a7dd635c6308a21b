"""The store of deliveries: which mails are due, what became of them, what failed, and how much is left.

It holds SQL only; longer statements are in `writing`, `claiming` and `requeue`. Every statement is safe to repeat, and every
change of a row states what it must have been before.

Killed before a commit, nothing happened; killed after one, the table says what is left to do. Two senders never hold one
row: claiming locks (``FOR UPDATE SKIP LOCKED``) and leaves a lease, and a result is written only under the lease it was
got with. The one exception is ``sent``, which is true whoever says it.
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
    """What is not finished, in the whole table."""

    collecting: int
    waiting: int
    sending: int
    oldest_due: timedelta
    """How long the most overdue of those that could go out now has been due; zero when there is none."""
    milestones_waiting: int
    """Milestones of petitions that are not known."""


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
        """The petitions that have deliveries which are not finished."""
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
            lease: The sender's.
            lease_for: How long it may hold them.
            without: Petitions that are left out.
        """
        try:
            async with connected(self._database) as connection, connection.transaction():
                found = await claiming.claim(connection, limit=limit, lease=lease, lease_for=lease_for, without=without)
                await failpoint("notify.before_claim")
                return found
        except asyncpg.UniqueViolationError:
            # deliveries_one_mail_at_a_time: another sender chose a mail to one of these targets at this very moment.
            # Nothing was changed; the next look finds that mail and leaves its target alone.
            return Claimed([], [])

    async def readdressed(self, delivery_id: UUID, lease: UUID, email: str) -> bool:
        """The mail goes to another address than its row says. Returns whether the lease still held."""
        async with connected(self._database) as connection:
            status: str = await connection.execute(
                "UPDATE deliveries SET email = $3 WHERE delivery_id = $1 AND lease = $2 AND state = 'sending'",
                delivery_id,
                lease,
                email,
            )
        return status == "UPDATE 1"

    async def sent(self, delivery_id: UUID, reply: str, email: str) -> None:
        """A server took the mail. True whatever the row has become meanwhile: nobody shall send it again.

        Unless its target was corrected meanwhile, and it went to `email`, where the target is not to be found.
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
        """The mail will not be sent, unless its cause is put right. Returns whether the lease still held.

        Args:
            delivery_id: The mail's.
            lease: The sender's.
            reply: The last words.
            cause: Why.
            maybe_taken: Whether the server may have taken it all the same.
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
        """The mail is to be tried again in a while. Returns whether the lease still held. Arguments as those of `failed`."""
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
        """Let go of everything that is still held under `lease`; it is due at once, for anybody.

        Args:
            lease: The sender's.
            keep: Deliveries that stay held until the lease has run out.
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
        """Make due again what these corrections of one petition put right, in one transaction."""
        try:
            async with connected(self._database) as connection, connection.transaction():
                done = await requeue.correct(connection, petition_id, corrections)
                await failpoint("notify.before_requeue")
                return done
        except asyncpg.UniqueViolationError:
            # deliveries_one_mail_at_a_time: a sender chose a mail to one of these targets at this very moment. Nothing was
            # changed; the next look finds that mail, and leaves what has to wait for it.
            return Retried([], [])

    async def note_requeued(self) -> list[Requeued]:
        """What became due again and no process has counted yet: each is returned once, to one of them."""
        async with connected(self._database) as connection, connection.transaction():
            return await requeue.note(connection)

    async def failed_by_cause(self) -> dict[Cause, int]:
        """How many deliveries have failed and stay so, by cause; those that moved on to another id are none of them."""
        async with connected(self._database) as connection:
            rows = await connection.fetch(
                "SELECT failed_for, count(*) AS number FROM deliveries WHERE state = 'failed' AND failed_for <> 'moved'"
                " GROUP BY failed_for"
            )
        return {Cause(row["failed_for"]): row["number"] for row in rows}

    # ----------------------------------------------------------------------------------------------------------- watching

    async def backlog(self, without: Sequence[str] = (), unpublished: Sequence[str] = ()) -> Backlog:
        """What is not finished.

        Args:
            without: Petitions that are not known, or not published. Their deliveries wait for them, as milestones do.
            unpublished: Petitions that somebody has taken out of sight: that their milestones wait is no fault.
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
        """Store as failed what is folded into a row that is no mail to its target: into itself, in a circle, or into
        nothing. Whether a mail has named such a milestone is not known, so none is sent."""
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
