"""The whole protocol, from the command to the milestone, under programs of failures that hypothesis writes.

The same machine with the same settings must find protocols that are broken on purpose.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from deploy.local.parts.postgres import Postgres
from deploy.local.parts.valkey import Valkey
from services.tally.counting import healing, redis_store
from services.tally.counting.announcing.milestones import MilestoneAnnouncer, _milestone_record
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import Reached, Swap, TallyState
from services.verify.store import transaction
from shared.contract.topics import MILESTONES_REACHED
from tests.model.log import Consumer
from tests.model.machine import ProtocolMachine
from tests.model.steps import DEADLOCK_TIMEOUT_MS, SteppedRedis
from tests.model.world import Parts, Violation
from tests.support.databases import database_named, redis_numbered

EXAMPLES = int(os.environ.get("GROUNDSWELL_MODEL_EXAMPLES", "0"))
"""The number of programs, different ones every time. Without it a few, always the same: those of `SEED`."""

SEED = 7

SETTINGS = settings(
    max_examples=EXAMPLES or 80,
    database=None,  # nor do failures of a broken protocol become examples for the right one
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@asynccontextmanager
async def parts_on(postgres: Postgres, valkey: Valkey) -> AsyncIterator[Parts]:
    async with (
        database_named(postgres, "model", deadlock_timeout=f"{DEADLOCK_TIMEOUT_MS}ms") as database,
        redis_numbered(valkey, 11) as redis,
    ):
        stepped = SteppedRedis(connection_pool=redis.connection_pool)
        connection = await asyncpg.connect(postgres.url_of("model"))
        yield Parts(database=database, connection=connection, redis=redis, stepped_redis=stepped)
        await connection.close()


@pytest.fixture(scope="module")
def machine(postgres: Postgres, valkey: Valkey) -> Iterator[type[ProtocolMachine]]:
    # hypothesis calls from outside any event loop, so the model has a loop of its own.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        parts = runner.run(stack.enter_async_context(parts_on(postgres, valkey)))

        class OnTheseParts(ProtocolMachine):
            pass

        OnTheseParts.runner, OnTheseParts.parts = runner, parts
        yield OnTheseParts if EXAMPLES else seed(SEED)(OnTheseParts)
        runner.run(stack.aclose())


def test_counts_are_the_ledgers_whatever_happens_and_wherever_it_happens(machine: type[ProtocolMachine]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)


# ------------------------------------------------------------------------------------------------------ broken on purpose


def without_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script returns the fences but counts without comparing them."""
    script = redis_store._script

    def without(name: str) -> str:
        compare, ask = "if fence ~= move[1] then", "if move[1] < 0 then"
        text = script(name)
        assert name != "apply.lua" or compare in text
        return text.replace(compare, ask)

    monkeypatch.setattr(redis_store, "_script", without)


def with_commits_before_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets are committed before the batch is decided and published, or counted."""

    async def finish(self: Consumer[object], records: Sequence[Any], epoch: int) -> None:
        if await self.hold(lambda: self.commit(records, epoch), epoch):
            decoded = [self._decode(one) for one in records]
            await self.hold(lambda: self._process(decoded), epoch)

    monkeypatch.setattr(Consumer, "finish", finish)


def without_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """verify does not publish again what it decided before."""

    async def nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(transaction, "replayed", nothing)


def without_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """tally does not notice that it talks to another Redis."""

    async def identity(_: object) -> str:
        return "always the same"

    monkeypatch.setattr(healing, "identity", identity)


def with_milestones_marked_before_publishing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A milestone is marked as announced before it is announced."""

    async def announce(self: MilestoneAnnouncer, reached: Reached) -> None:
        recorded = await self._ledger.record_milestone(reached)
        await self._store.mark_announced(reached.petition_id, [reached.threshold])
        if recorded is not None:
            await self._ledger.mark_announced(recorded)
            await self._producer.publish(MILESTONES_REACHED.name, _milestone_record(recorded))

    monkeypatch.setattr(MilestoneAnnouncer, "_announce", announce)


def without_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild is swapped in although the stored tally is ahead of it."""
    swap_in = TallyStore.swap_in

    async def always(self: TallyStore, petition_id: str, state: TallyState, **_: Any) -> Swap:
        return await swap_in(self, petition_id, state, force=True)

    monkeypatch.setattr(TallyStore, "swap_in", always)


UNTIL_FOUND = settings(SETTINGS, max_examples=400, phases=(Phase.generate,), print_blob=False)
"""The same programs, as many as needed, without shrinking: it matters only that one fails."""


@pytest.mark.parametrize(
    "broken",
    [
        without_fence,
        with_commits_before_publishing,
        without_replays,
        without_witness,
        with_milestones_marked_before_publishing,
        without_guard,
    ],
)
def test_a_protocol_that_is_broken_on_purpose_is_found_out(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, machine: type[ProtocolMachine]
) -> None:
    broken(monkeypatch)
    with pytest.raises(Violation):
        run_state_machine_as_test(machine, settings=UNTIL_FOUND)
