"""SQL and rules of listing deliveries for an operator: recipients, states, and the server's replies.

Rows may hold any value of their columns, and servers may send any text. So texts are cut and cleaned of terminal control
characters, and times out of range are left out. Addresses in a server's reply are left out too: it may name an address that
is private, such as the one to which a mailbox is forwarded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.notify.deliveries import one_line, shorten
from services.notify.mail.refusals import enhanced_status, read_reply
from services.notify.outbox.connection import AnyConnection

_ADDRESS: Final = re.compile(r"[^\s<>()\[\]:;,\"']+@[^\s<>()\[\]:;,\"']+")
_WORDS: Final = 300
"""Most characters of a server's reply; its first line is enough."""


class State(StrEnum):
    """The state of a delivery; see deploy/migrations/0003_deliveries.sql."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FOLDED = "folded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LastWords:
    """The last reply of a server, or our own text; each field is None if there is none."""

    code: int | None
    status: str | None
    """The enhanced status code, ``5.1.1``."""
    command: str | None
    """The command that it answered: ``RCPT TO`` or ``DATA``."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A delivery for an operator. Times are in UTC; None if there is none, or one out of range."""

    delivery_id: UUID
    petition_id: str
    threshold: int
    target_id: str
    target_name: str
    email: str
    state: State
    failed_for: str | None
    named_by: UUID | None
    """The delivery whose mail names this milestone too."""
    attempts: int
    last_words: LastWords | None
    created_at: datetime | None
    due_at: datetime | None
    finished_at: datetime | None
    requeued_at: datetime | None
    requeued_for: str | None
    requeued_by: str | None


def last_words(words: str) -> LastWords:
    """A row's ``last_reply`` in a form that is safe to show."""
    reply = read_reply(words)
    text = one_line(words) if reply is None else reply.text
    text = shorten(_ADDRESS.sub("<address>", text), _WORDS)
    if reply is None:
        return LastWords(None, None, None, text)
    status = enhanced_status(reply)
    return LastWords(reply.code, None if status is None else ".".join(map(str, status)), reply.stage.value, text)


async def listed(
    connection: AnyConnection,
    *,
    petition_id: str | None = None,
    state: State | None = None,
    delivery: UUID | None = None,
    limit: int,
) -> list[Listed]:
    """Deliveries, optionally of one petition or in one state; at most `limit`, most recently changed first."""
    rows = await connection.fetch(
        """
        SELECT delivery_id, petition_id, threshold, target_id, left(target_name, 300) AS target_name,
               left(email, 600) AS email, state, failed_for, folded_into, attempts, left(last_reply, 1000) AS last_reply,
               requeued_for, left(requeued_by, 200) AS requeued_by,
               CASE WHEN created_at >= '2000-01-01' AND created_at < '3000-01-01' THEN created_at END AS created_at,
               CASE WHEN due_at >= '2000-01-01' AND due_at < '3000-01-01' THEN due_at END AS due_at,
               CASE WHEN finished_at >= '2000-01-01' AND finished_at < '3000-01-01' THEN finished_at END AS finished_at,
               CASE WHEN requeued_at >= '2000-01-01' AND requeued_at < '3000-01-01' THEN requeued_at END AS requeued_at
        FROM deliveries
        WHERE ($1::text IS NULL OR petition_id = $1) AND ($2::text IS NULL OR state = $2)
          AND ($3::uuid IS NULL OR delivery_id = $3)
        ORDER BY greatest(deliveries.created_at, deliveries.finished_at, deliveries.requeued_at) DESC, threshold DESC,
                 delivery_id
        LIMIT $4
        """,
        petition_id,
        state,
        delivery,
        limit,
    )
    return [
        Listed(
            delivery_id=row["delivery_id"],
            petition_id=one_line(row["petition_id"]),
            threshold=row["threshold"],
            target_id=one_line(row["target_id"]),
            target_name=one_line(row["target_name"]),
            email=row["email"],
            state=State(row["state"]),
            failed_for=row["failed_for"],
            named_by=row["folded_into"],
            attempts=row["attempts"],
            last_words=None if row["last_reply"] is None else last_words(row["last_reply"]),
            created_at=row["created_at"],
            due_at=row["due_at"],
            finished_at=row["finished_at"],
            requeued_at=row["requeued_at"],
            requeued_for=row["requeued_for"],
            requeued_by=None if row["requeued_by"] is None else one_line(row["requeued_by"]),
        )
        for row in rows
    ]


def moment_text(value: datetime | None) -> str:
    """A time for an operator, in UTC."""
    return "an unknown time" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
