"""SQL of writing deliveries: each is new or stays unchanged; invalid rows in its place are removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from services.notify.deliveries import NO_TARGET, NOT_DECIDED, NOT_ITS_ID, Delivery
from services.notify.outbox import claiming
from services.notify.outbox.connection import AnyConnection

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """The result of writing deliveries."""

    created: list[UUID]
    """Those that are new."""
    replaced: int
    """The number of forged rows that were in their place: open, with an id that is not derived from their fields."""


OPEN: Final = "state IN ('pending', 'sending')"

_WITHHELD: Final = "(old.state = 'failed' AND old.last_reply = ANY($5::text[]))"

_MAY_BE_OVER: Final = (NOT_DECIDED, NOT_ITS_ID, NO_TARGET)
"""Reasons after which a withheld row may be mailed if its milestone comes again. Not `NO_MAIL`: a mail may have named it."""


async def write(connection: AnyConnection, deliveries: Sequence[Delivery], due_in: timedelta) -> Written:
    """Write these deliveries, due in `due_in`; existing ones are not changed. Call it in a transaction."""
    if not deliveries:
        return Written([], 0)
    replaced = await _make_room(connection, deliveries)
    return Written(await _insert(connection, deliveries, due_in), replaced)


async def _make_room(connection: AnyConnection, deliveries: Sequence[Delivery]) -> int:
    """Remove invalid rows in the place of these deliveries: those that were withheld before, and open ones whose id or key
    is another delivery's.

    Returns:
        The number of open rows among them.
    """
    rows = await connection.fetch(
        f"""
        WITH new AS (
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[])
                          AS new (delivery_id, petition_id, threshold, target_id)
        )
        SELECT old.delivery_id, old.{OPEN} AS open FROM new JOIN deliveries AS old USING (delivery_id)
        WHERE {_WITHHELD}
           OR (old.{OPEN} AND (old.petition_id, old.threshold, old.target_id) <> (new.petition_id, new.threshold, new.target_id))
        UNION
        SELECT old.delivery_id, old.{OPEN} FROM new JOIN deliveries AS old USING (petition_id, threshold, target_id)
        WHERE old.delivery_id <> new.delivery_id AND (old.{OPEN} OR {_WITHHELD})
        """,  # noqa: S608  our own text
        [delivery.delivery_id for delivery in deliveries],
        [delivery.petition_id for delivery in deliveries],
        [delivery.threshold for delivery in deliveries],
        [delivery.target_id for delivery in deliveries],
        _MAY_BE_OVER,
    )
    if not rows:
        return 0
    in_the_way = [row["delivery_id"] for row in rows]
    await claiming.unfold(connection, in_the_way)
    await connection.execute("DELETE FROM deliveries WHERE delivery_id = ANY($1::uuid[])", in_the_way)
    log.warning("deliveries_replaced", delivery_ids=[str(one) for one in in_the_way])
    return sum(row["open"] for row in rows)


async def _insert(connection: AnyConnection, deliveries: Sequence[Delivery], due_in: timedelta) -> list[UUID]:
    rows = await connection.fetch(
        """
        INSERT INTO deliveries (delivery_id, petition_id, threshold, target_id, petition_title, organisation_name,
                                target_name, target_kind, email, count, reached_at, due_at)
        SELECT *, now() + $12::interval
        FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[],
                    $7::text[], $8::text[], $9::text[], $10::bigint[], $11::timestamptz[])
        ON CONFLICT DO NOTHING RETURNING delivery_id
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
    return [row["delivery_id"] for row in rows]
