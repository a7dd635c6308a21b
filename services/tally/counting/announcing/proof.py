"""Whether a milestone was really reached: the ledger is asked before anything is announced.

The count in Redis is what is shown, and it is quick. It may also have been raised by hand, or by a fact that nobody decided,
until the audit puts it right. A wrong number on a page is gone in seconds; a mail that went out stays.
"""

from __future__ import annotations

from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import DamagedTally, Reached


class MilestoneProof:
    """Asks the ledger. A milestone is rare, so an exact answer is affordable."""

    def __init__(self, *, ledger: Ledger, store: TallyStore) -> None:
        self._ledger, self._store = ledger, store

    async def holds(self, reached: Reached) -> bool:
        """Whether the petition's count was ever as high as the threshold.

        Facts of several lanes are not always counted in the order of their own times. Where signatures were taken back
        around the threshold, the course of the count by those times may therefore miss it by a few. Then the tally itself
        is proved: if it is the exact sum of the ledger's rows, so was the count that reached the threshold.

        Raises:
            asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; nothing can be said.
        """
        petition_id, threshold = reached.petition_id, reached.threshold
        ever, now = await self._ledger.ever_counted(petition_id)
        if ever < threshold:
            return False
        if now >= threshold or await self._ledger.peak(petition_id) >= threshold:
            return True
        try:
            stored = await self._store.state(petition_id)
        except DamagedTally:
            return False
        proved = await self._ledger.state_at(petition_id, stored.fences)
        return (stored.count, stored.revision) == (proved.count, proved.revision)
