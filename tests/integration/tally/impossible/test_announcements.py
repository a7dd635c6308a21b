"""Snapshots that were never counted are taken back, on real Valkey and PostgreSQL."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from services.tally.counting import audit as tally_audit
from services.tally.counting.audit import AuditLoop, audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.redis_store import TallyStore
from shared.contract.events import TallyUpdated
from shared.contract.topics import TALLIES_UPDATED
from shared.postgres import Database
from tests.integration.tally.impossible.audited import told
from tests.integration.tally.test_tally_healing import Parts, Process
from tests.support.signing import NOON, PATH, fact


def forged(count: int, revision: int, epoch: int = 0) -> TallyUpdated:
    return TallyUpdated(
        petition_id=PATH,
        count=count,
        revision=revision,
        epoch=epoch,
        countries={"NL": count},
        minutes={},
        earlier=count,
        updated_at=NOON,
    )


@pytest.mark.parametrize(
    "announced",
    [forged(987_654_321, 10**15), forged(5, 5), forged(5, 4), forged(1, 1, epoch=1_795_000_000_000)],
    ids=["far ahead", "one ahead", "the same revision", "another epoch"],
)
async def test_a_snapshot_that_nobody_counted_is_taken_back(
    parts: Parts, process: Process, announced: TallyUpdated
) -> None:
    process.handler.on_announced(announced, announced.model_dump_json().encode())
    await process.looks_after()
    await process.snapshots.flush()
    assert told(parts).version > announced.version
    assert told(parts).count == 4
    await process.takes(await parts.decided(fact(9)))
    await process.snapshots.flush()
    assert (told(parts).count, told(parts).revision) == (5, 5)
    assert process.registry.get_sample_value("groundswell_tally_snapshots_taken_back_total") == 1


async def test_what_was_taken_back_stays_so_when_redis_is_lost(parts: Parts, process: Process, redis: Redis) -> None:
    announced = forged(1_000, 1_000)
    process.handler.on_announced(announced, announced.model_dump_json().encode())
    await process.looks_after()
    await process.snapshots.flush()
    epoch = told(parts).epoch
    await redis.flushdb()
    await process.looks_after()
    assert (await parts.store.tallies([PATH]))[PATH].version == (epoch, 4)


async def test_what_the_owner_has_published_itself_is_compared_with_nothing(parts: Parts, process: Process) -> None:
    rebuilt = process.rebuilds("announced")
    for record in parts.producer.on(TALLIES_UPDATED.name):
        snapshot = TallyUpdated.model_validate_json(record.value or b"")
        process.handler.on_announced(snapshot, record.value or b"")
    await process.looks_after()
    assert process.rebuilds("announced") == rebuilt


async def test_a_rebuild_by_force_below_what_was_announced_reaches_subscribers(
    parts: Parts, process: Process, database: Database
) -> None:
    await database.pool.execute("DELETE FROM ledger WHERE petition_id = $1 AND position > 1", PATH)  # put back
    await process.healer.rebuild(PATH, cause="command", force=True)  # by another process: the command
    await process.looks_after()
    await process.snapshots.flush()
    assert (told(parts).count, told(parts).revision) == (1, 1)
    assert told(parts).epoch > 0


async def test_the_audit_compares_what_is_announced_as_well(parts: Parts, process: Process) -> None:
    (right,) = await audit(parts.store, parts.ledger, [PATH], {PATH: told(parts)})
    assert right.right
    for wrong in (forged(5, 5), forged(5, 4)):
        (found,) = await audit(parts.store, parts.ledger, [PATH], {PATH: wrong})
        assert [difference.split()[0] for difference in found.differences] == ["announced"]


async def test_audits_of_a_small_installation_follow_each_other_in_seconds(
    parts: Parts, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    class Enough(Exception):
        pass

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) > 2:
            raise Enough

    monkeypatch.setattr(tally_audit.asyncio, "sleep", nap)
    loop = AuditLoop(
        store=parts.store,
        ledger=parts.ledger,
        metrics=process.handler.metrics,
        owns=process.handler.owns,
        interval_seconds=timedelta(minutes=5).total_seconds(),
    )
    with pytest.raises(Enough):
        await loop.run()
    assert max(naps) <= 300
    assert naps[0] == 5
    assert isinstance(parts.store, TallyStore)
    assert isinstance(parts.ledger, Ledger)
