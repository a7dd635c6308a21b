"""Helpers for the tests of tally: steps of one lane, everything that Redis stores, rows of the ledger."""

from typing import Any

from redis.asyncio import Redis

from services.tally.counting.redis_store import TallyStore
from services.tally.counting.step import Step, step
from services.tally.counting.tally import Applied, NotApplied
from shared.contract.events import CountedFact, minute_of
from shared.postgres import Database
from tests.support.signing import NOON, PATH, as_read, fact

LANE = 3
MINUTE = minute_of(NOON)


async def apply(store: TallyStore, part: Step, *thresholds: int, petition_id: str = PATH) -> Applied:
    (reply,) = await store.apply([(petition_id, part, thresholds)])
    assert isinstance(reply, Applied)
    return reply


async def refused(store: TallyStore, part: Step, *thresholds: int) -> dict[int, int]:
    (reply,) = await store.apply([(PATH, part, thresholds)])
    assert isinstance(reply, NotApplied)
    return reply.fences


def signed(first: int, last: int, fence: int | None = None, **fields: Any) -> Step:
    """The step of one signature at each position from `first` to `last` of the lane."""
    return step(
        as_read(*(fact(position, lane=LANE, **fields) for position in range(first, last + 1))),
        {LANE: first - 1 if fence is None else fence},
    )


def withdrawn(position: int, **fields: Any) -> Step:
    return step(as_read(fact(position, -1, lane=LANE, **fields)), {LANE: position - 1})


async def everything(redis: Redis) -> dict[str, Any]:
    """Every hash of the database, with what is left of its time to live."""
    found: dict[str, Any] = {}
    for key in sorted(await redis.keys("*")):
        found[str(key)] = (await redis.hgetall(key), await redis.ttl(key))
    return found


def told(reply: Applied) -> list[tuple[int, int, int]]:
    return [(one.threshold, one.count, one.revision) for one in reply.unannounced]


async def put_into_ledger(database: Database, *facts: CountedFact) -> None:
    """What verify does when it has decided these."""
    for one in facts:
        await database.pool.execute(
            "INSERT INTO ledger VALUES ($1, $2, gen_random_uuid(), $3, $4, $5, $6, $7, $8, $8)",
            one.lane,
            one.position,
            one.petition_id,
            one.signature_id,
            "verified" if one.delta > 0 else "withdrawn",
            one.delta,
            one.country,
            one.signed_at,
        )
