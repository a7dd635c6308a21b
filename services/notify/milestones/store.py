"""SQL of incoming milestones: tally's decisions, the deliveries made of them, and milestones that wait for their petition.

Every statement is idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.notify.deliveries import Delivery
from services.notify.outbox.connection import connected
from services.notify.outbox.writing import Written, write
from shared.contract.events import MilestoneReached
from shared.postgres import Database


@dataclass(frozen=True, slots=True)
class Decided:
    """A milestone as tally recorded it."""

    count: int
    revision: int
    reached_at: datetime


class MilestoneStore:
    """The store of incoming milestones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decided(self, milestones: Sequence[MilestoneReached]) -> dict[tuple[str, int], Decided]:
        """tally's records of these milestones, by petition and threshold. tally records a milestone before publishing it."""
        async with connected(self._database) as connection:
            rows = await connection.fetch(
                "SELECT petition_id, threshold, count, revision, reached_at FROM milestones_decided"
                " JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::bigint[]) AS each (petition_id, threshold)) AS asked"
                " USING (petition_id, threshold)",
                [milestone.petition_id for milestone in milestones],
                [milestone.threshold for milestone in milestones],
            )
        return {
            (row["petition_id"], row["threshold"]): Decided(row["count"], row["revision"], row["reached_at"])
            for row in rows
        }

    async def add(
        self, deliveries: Sequence[Delivery], waiting: Sequence[MilestoneReached], *, due_in: timedelta
    ) -> Written:
        """Write the deliveries and waiting milestones of a batch, durably. Existing deliveries are not changed.

        Args:
            deliveries: Deliveries of milestones whose petition is known.
            waiting: Milestones whose petition is unknown.
            due_in: How long the deliveries collect further milestones.
        """
        async with connected(self._database) as connection, connection.transaction():
            if waiting:
                await connection.execute(
                    "INSERT INTO milestones_waiting AS old (petition_id, threshold, count, revision, reached_at)"
                    " SELECT DISTINCT ON (petition_id, threshold) *"
                    " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[])"
                    "      AS each (petition_id, threshold, count, revision, reached_at)"
                    # A row that was refused may have been decided since.
                    " ON CONFLICT (petition_id, threshold) DO UPDATE SET count = excluded.count,"
                    "     revision = excluded.revision, reached_at = excluded.reached_at, refused_at = NULL"
                    " WHERE old.refused_at IS NOT NULL",
                    [milestone.petition_id for milestone in waiting],
                    [milestone.threshold for milestone in waiting],
                    [milestone.count for milestone in waiting],
                    [milestone.revision for milestone in waiting],
                    [milestone.reached_at for milestone in waiting],
                )
            return await write(connection, deliveries, due_in)

    async def petitions_waited_for(self) -> list[str]:
        """The petitions for which milestones wait."""
        async with connected(self._database) as connection:
            rows = await connection.fetch(
                "SELECT DISTINCT petition_id FROM milestones_waiting WHERE refused_at IS NULL"
            )
        return [row["petition_id"] for row in rows]

    async def refuse_undecided(self) -> list[tuple[str, int]]:
        """Set aside waiting milestones that tally never decided: they stay in the table and do not become deliveries.

        Returns:
            Petition and threshold of each.
        """
        async with connected(self._database) as connection:
            rows = await connection.fetch(
                "UPDATE milestones_waiting AS waiting SET refused_at = now() WHERE refused_at IS NULL AND NOT EXISTS ("
                " SELECT FROM milestones_decided AS decided"
                " WHERE decided.petition_id = waiting.petition_id AND decided.threshold = waiting.threshold)"
                " RETURNING petition_id, threshold"
            )
        return [(row["petition_id"], row["threshold"]) for row in rows]

    async def release(
        self,
        petition_ids: Sequence[str],
        deliveries_of: Callable[[MilestoneReached], list[Delivery]],
        *,
        due_in: timedelta,
    ) -> Written:
        """Turn the waiting milestones of these petitions into deliveries, in one transaction.

        A waiting row only names the milestone; the numbers come from tally's record. A milestone that tally did not decide
        stays (`refuse_undecided`).
        """
        async with connected(self._database) as connection, connection.transaction():
            rows = await connection.fetch(
                "DELETE FROM milestones_waiting AS waiting USING milestones_decided AS decided"
                " WHERE waiting.petition_id = ANY($1::text[]) AND waiting.refused_at IS NULL"
                " AND decided.petition_id = waiting.petition_id AND decided.threshold = waiting.threshold"
                " RETURNING decided.petition_id, decided.threshold, decided.count, decided.revision, decided.reached_at",
                list(petition_ids),
            )
            deliveries = [delivery for row in rows for delivery in deliveries_of(MilestoneReached(**dict(row)))]
            return await write(connection, deliveries, due_in)
