"""Proves with the ledger, before an announcement, that a milestone was really reached.

The count in Redis may have been raised by hand, or by a forged fact, until an audit repairs it. A wrong number on a page is
gone in seconds; a mail cannot be recalled.
"""

from __future__ import annotations

from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import DamagedTally, Reached


class MilestoneProof:
    """Proves milestones with the ledger. They are rare, so an exact proof is affordable."""

    def __init__(self, *, ledger: Ledger, store: TallyStore) -> None:
        self._ledger, self._store = ledger, store

    async def holds(self, reached: Reached) -> bool:
        """Whether the petition's count was ever as high as the threshold.

        Facts of several lanes are not always counted in the order of their own times. Where signatures were revoked around
        the threshold, the count in the order of those times may therefore miss it by a few. Then the tally itself is
        audited: if it is the exact sum of the ledger's rows, so was the count that reached the threshold.

        Raises:
            asyncpg.PostgresError, redis.exceptions.RedisError, OSError: something is away; there is no result.
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
