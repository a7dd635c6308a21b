"""The audit, and what a subscriber knows."""

from services.tally.counting.audit import AuditLoop
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from tests.integration.tally.test_tally_healing import Parts, Process
from tests.support.signing import PATH

KEY, MINUTES = f"tally:{{{PATH}}}", f"tally:{{{PATH}}}:minutes"


async def audited(process: Process, parts: Parts, rounds: int = 1, lag: int = 0) -> None:
    """So many rounds of the periodic audit, and what the watch does afterwards."""
    loop = AuditLoop(
        store=parts.store,
        ledger=parts.ledger,
        metrics=process.handler.metrics,
        owns=process.handler.owns,
        interval_seconds=300,
        heal=process.handler.heal,
        compare=process.handler.compare,
        lag=lambda: lag,
        thresholds=process.handler.thresholds,
        reached=process.handler.reached,
    )
    for _ in range(rounds):
        await loop._audit_once()
    await process.looks_after()
    await process.snapshots.flush()


def told(parts: Parts, petition_id: str = PATH) -> TallyUpdated:
    """What a subscriber knows who takes the snapshot with the highest version."""
    snapshots = [TallyUpdated.model_validate_json(one.value or b"") for one in parts.producer.on(TALLIES_UPDATED.name)]
    return max((one for one in snapshots if one.petition_id == petition_id), key=lambda one: one.version)
