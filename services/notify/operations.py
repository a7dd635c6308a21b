"""An operator's work on deliveries: listing them, and making failed ones due again.

Plain functions for a command or a console, safe beside running senders; they print nothing. Each takes a connection of
`connected`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from services.notify.mail.refusals import Cause
from services.notify.outbox import requeue
from services.notify.outbox.failures import Left, Retried
from services.notify.outbox.listing import Listed, State, listed, moment_text
from shared.runtime.unreachable import why

_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60
_TRIES: Final = 5
"""Attempts for one petition, each of which may conflict with senders that choose mails to the same targets."""

NOT_BY_COMMAND: Final = {
    Cause.TARGET: "their petition does not address the target any more; if it does again (PUT), they go out by themselves",
    Cause.WITHHELD: "they are no milestones that tally decided, or nobody knows whether a mail has named them",
    Cause.MOVED: "their target goes by another id now, and has deliveries of its own",
}
"""Why deliveries that failed for these causes are not retried by an operator."""


class NotDone(Exception):
    """The operation was not carried out. The message says why, for an operator."""


@dataclass(frozen=True, slots=True)
class Found:
    """Deliveries, most recently changed first."""

    deliveries: list[Listed]
    more: bool
    """Whether there are more than `limit`."""


@dataclass(frozen=True, slots=True)
class DueAgain:
    """The result of a retry."""

    again: list[UUID]
    """Deliveries due again, including those folded into the failed mails."""
    left: list[Left]
    """Failed deliveries that could not be made due now, with the reasons."""
    not_by_command: Counter[Cause]
    """The number of deliveries that failed for each cause of `NOT_BY_COMMAND`."""


@asynccontextmanager
async def connected(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one operation.

    Raises:
        NotDone: PostgreSQL is away, also in the middle of the operation, or its tables are of another version.
    """
    connection = None
    try:
        connection = await asyncpg.connect(postgres_url, timeout=_CONNECT_SECONDS, command_timeout=_ANSWER_SECONDS)
        yield connection
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        raise NotDone("The tables are those of another version: run `groundswell migrate`") from None
    except (
        OSError,  # also TimeoutError
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.OperatorInterventionError,
        asyncpg.DeadlockDetectedError,
    ) as error:
        raise NotDone(f"PostgreSQL is away: {why(error)}. Run the same command again: what is due stays due") from None
    finally:
        if connection is not None:
            await connection.close(timeout=_CONNECT_SECONDS)


async def find(
    connection: asyncpg.Connection, *, petition_id: str | None = None, state: State | None = None, limit: int
) -> Found:
    """Deliveries, optionally of one petition or in one state; at most `limit`, most recently changed first."""
    found = await listed(connection, petition_id=petition_id, state=state, limit=limit + 1)
    return Found(found[:limit], len(found) > limit)


async def retry(
    connection: asyncpg.Connection,
    *,
    petition_id: str | None = None,
    delivery: UUID | None = None,
    actor: str | None = None,
) -> DueAgain:
    """Make failed deliveries due again: one, those of a petition, or all. Each petition has its own transaction.

    Args:
        connection: From `connected`.
        petition_id: Only the failed deliveries of this petition.
        delivery: Only this delivery.
        actor: The person who decided it; stored, and logged by notify.

    Raises:
        NotDone: there is no such delivery or none of this petition, it may not be retried now, or every attempt conflicted
            with a sender. Deliveries of earlier petitions stay due.
    """
    petitions = await _petitions(connection, petition_id, delivery)
    again: list[UUID] = []
    left: list[Left] = []
    for one in petitions:
        done = await _retry(connection, one, delivery, actor)
        again += done.again
        left += done.left
    if delivery is not None and left:
        raise NotDone(f"{delivery}: {left[0].why}")
    others = Counter[Cause]() if delivery else await _others(connection, petitions)
    return DueAgain(again, left, others)


async def _petitions(connection: asyncpg.Connection, petition_id: str | None, delivery: UUID | None) -> list[str]:
    """The petitions of the deliveries to retry.

    Raises:
        NotDone: there is no such delivery, or it may not be retried; or the petition has no deliveries.
    """
    if delivery is not None:
        found = await listed(connection, delivery=delivery, limit=1)
        if not found:
            raise NotDone(f"There is no delivery {delivery}; `groundswell deliveries list` shows those that there are")
        if (reason := _why_not(found[0])) is not None:
            raise NotDone(f"{delivery} {reason}")
        return [await connection.fetchval("SELECT petition_id FROM deliveries WHERE delivery_id = $1", delivery)]
    if petition_id is not None:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM deliveries WHERE petition_id = $1)", petition_id):
            raise NotDone(f"{petition_id} has no deliveries: no such petition, or it has reached no milestone yet")
        return [petition_id]
    rows = await connection.fetch(
        "SELECT DISTINCT petition_id FROM deliveries WHERE state = 'failed' ORDER BY petition_id"
    )
    return [row["petition_id"] for row in rows]


def _why_not(one: Listed) -> str | None:
    """Why this delivery is not retried, as the end of a sentence; None if it may be."""
    match one.state:
        case State.SENT:
            return f"was sent at {moment_text(one.finished_at)}: a second mail is not sent"
        case State.FOLDED:
            return f"is named by the mail {one.named_by}, and ends as that does: retry that one if it failed"
        case State.SENDING:
            return "is being sent at this moment"
        case State.PENDING:
            return f"has not failed: it is due at {moment_text(one.due_at)}"
        case State.FAILED if one.failed_for in {cause.value for cause in NOT_BY_COMMAND}:
            return f"is not retried; {NOT_BY_COMMAND[Cause(one.failed_for)].replace('they ', 'such deliveries ', 1)}"
    return None


async def _retry(connection: asyncpg.Connection, petition_id: str, delivery: UUID | None, actor: str | None) -> Retried:
    """Make failed deliveries of one petition due, in one transaction.

    Raises:
        NotDone: every attempt conflicted with a sender that chose mails to the same targets.
    """
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                return await requeue.retry(connection, petition_id, delivery=delivery, by=actor)
        except asyncpg.UniqueViolationError:
            continue
    raise NotDone(f"notify is choosing mails to the targets of {petition_id}; run the same command again")


async def _others(connection: asyncpg.Connection, petitions: list[str]) -> Counter[Cause]:
    """The number of failed deliveries of these petitions that no command makes due, by cause."""
    rows = await connection.fetch(
        "SELECT failed_for, count(*) AS number FROM deliveries WHERE petition_id = ANY($1::text[]) AND state = 'failed'"
        " AND failed_for = ANY($2::text[]) GROUP BY failed_for",
        petitions,
        [cause.value for cause in NOT_BY_COMMAND],
    )
    return Counter({Cause(row["failed_for"]): row["number"] for row in rows})
