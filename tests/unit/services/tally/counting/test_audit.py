"""Proving a count against the ledger."""

from dataclasses import replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from services.tally.counting import audit as tally_audit
from services.tally.counting.audit import AuditLoop, PetitionAudit, audit
from services.tally.counting.ledger import Ledger
from services.tally.counting.metrics import TallyMetrics
from services.tally.counting.redis_store import TallyStore
from services.tally.counting.tally import TallyState
from tests.support.signing import FERRY, PATH

RIGHT = TallyState(3, 5, {0: 9, 4: 2}, {"NL": 2, "BE": 1}, {29_000_000: 3})


class Counted(TallyStore):
    """Tallies from memory."""

    def __init__(self, states: dict[str, TallyState]) -> None:
        self.states = states
        self.fails: Exception | None = None
        self.fails_once: Exception | None = None

    async def state(self, petition_id: str) -> TallyState:
        once, self.fails_once = self.fails_once, None
        if once is not None:
            raise once
        if self.fails is not None:
            raise self.fails
        return self.states[petition_id]


class Proved(Ledger):
    """A ledger that proves every petition's state at its fences to be the right one."""

    def __init__(self, states: dict[str, TallyState], beyond: int = 0) -> None:
        self.states, self.rows_beyond = states, beyond
        self.asked: list[tuple[str, Any]] = []

    async def state_at(self, petition_id: str, fences: Any) -> TallyState:
        self.asked.append((petition_id, fences))
        return self.states[petition_id]

    async def epoch(self, petition_id: str) -> int:
        return 0

    async def beyond(self, petition_id: str, fences: Any) -> int:
        return self.rows_beyond


async def audited(stored: TallyState) -> PetitionAudit:
    (found,) = await audit(Counted({PATH: stored}), Proved({PATH: RIGHT}), [PATH])
    return found


async def test_a_count_that_the_ledger_gives_is_right() -> None:
    found = await audited(RIGHT)
    assert found == PetitionAudit(PATH, 3, 3, 0, (), RIGHT.fences)
    assert found.right
    assert found.drift == 0


async def test_the_ledger_is_asked_at_the_fences_that_were_counted_up_to() -> None:
    ledger = Proved({PATH: RIGHT, FERRY: RIGHT}, beyond=4)
    found = await audit(Counted({PATH: RIGHT, FERRY: RIGHT}), ledger, {FERRY, PATH})
    assert ledger.asked == [(FERRY, RIGHT.fences), (PATH, RIGHT.fences)]
    assert [(one.petition_id, one.beyond, one.right) for one in found] == [(FERRY, 4, True), (PATH, 4, True)]


@pytest.fixture(autouse=True)
def without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_audit, "_LEAST_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("changes", "drift", "differences"),
    [
        ({"count": 4}, 1, ()),
        ({"count": 1}, -2, ()),
        ({"revision": 6}, 0, ("revision",)),
        ({"epoch": 6}, 0, ("epoch",)),
        ({"fences": {0: 9, 4: 3}}, 0, ("fence 4",)),
        ({"countries": {"NL": 3}}, 0, ("country BE", "country NL")),
        ({"minutes": {29_000_001: 3}}, 0, ("minute 29000000", "minute 29000001")),
    ],
)
async def test_what_differs_is_named(changes: dict[str, Any], drift: int, differences: tuple[str, ...]) -> None:
    found = await audited(replace(RIGHT, **changes))
    assert (found.drift, found.differences, found.right) == (drift, differences, False)
    assert found.as_json()["drift"] == drift


async def test_a_country_with_nobody_left_differs_from_nothing() -> None:
    assert (await audited(replace(RIGHT, countries={**RIGHT.countries, "SE": 0}))).right


class Loop:
    """An audit loop that ends after two rounds."""

    def __init__(self, store: TallyStore, ledger: Ledger, owned: dict[str, bool]) -> None:
        self.registry = CollectorRegistry()
        self.loop = AuditLoop(
            store=store, ledger=ledger, metrics=TallyMetrics(self.registry), owns=self._owns, interval_seconds=0.001
        )
        self._owned, self._rounds = owned, 0

    async def _owns(self) -> dict[str, bool]:
        self._rounds += 1
        if self._rounds > 2:
            raise EndOfTest
        return self._owned

    async def run(self) -> None:
        with pytest.raises(EndOfTest):
            await self.loop.run()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"groundswell_tally_{name}", labels)


class EndOfTest(Exception):
    """Ends a loop that runs for ever."""


async def test_the_loop_audits_the_petitions_of_this_instance() -> None:
    states = {PATH: replace(RIGHT, count=5), FERRY: replace(RIGHT, count=100)}
    loop = Loop(Counted(states), Proved({PATH: RIGHT, FERRY: RIGHT}, 2), {PATH: True, FERRY: False})
    await loop.run()
    assert loop.metric("drift") == 2
    assert loop.metric("ledger_beyond_fences") == 2
    assert loop.metric("audits_total", result="wrong") == 2


async def test_too_many_here_and_too_few_there_do_not_cancel_out() -> None:
    states = {PATH: replace(RIGHT, count=5), FERRY: replace(RIGHT, count=1)}
    loop = Loop(Counted(states), Proved({PATH: RIGHT, FERRY: RIGHT}), {PATH: True, FERRY: True})
    await loop.run()
    assert loop.metric("drift") == 4


async def test_an_audit_that_cannot_be_made_is_no_good_one() -> None:
    store = Counted({PATH: RIGHT})
    store.fails = RedisConnectionError("away")
    loop = Loop(store, Proved({PATH: RIGHT}), {PATH: True})
    await loop.run()
    assert loop.metric("audits_total", result="not_made") == 2
    assert loop.metric("audits_total", result="right") == 0


async def test_a_connection_that_died_while_nobody_used_it_costs_no_audit() -> None:
    store = Counted({PATH: RIGHT})
    store.fails_once = RedisConnectionError("Connection closed by server.")
    loop = Loop(store, Proved({PATH: RIGHT}), {PATH: True})
    await loop.run()
    assert loop.metric("audits_total", result="not_made") == 0
    assert loop.metric("audits_total", result="right") == 2


async def test_a_bug_in_an_audit_is_not_hidden() -> None:
    store = Counted({PATH: RIGHT})
    store.fails = KeyError("a bug")
    loop = Loop(store, Proved({PATH: RIGHT}), {PATH: True})
    with pytest.raises(KeyError):
        await loop.loop.run()


async def test_no_interval_turns_audits_off() -> None:
    never = AuditLoop(
        store=cast("TallyStore", None),
        ledger=cast("Ledger", None),
        metrics=TallyMetrics(CollectorRegistry()),
        owns=cast("Any", None),
        interval_seconds=0,
    )
    await never.run()
