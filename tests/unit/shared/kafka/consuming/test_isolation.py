"""Splitting a batch: whatever cannot be applied is found, everything else is applied once and in order."""

from collections.abc import Sequence
from random import Random
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from shared.kafka.consuming import holding as holding_module
from shared.kafka.consuming import isolation as isolation_module
from shared.kafka.consuming.dead_letters import DeadLetter
from shared.kafka.consuming.holding import BatchAbandoned, Holding
from shared.kafka.consuming.isolation import TRIES_ALONE, Isolation
from shared.kafka.consuming.metrics import ConsumerMetrics
from shared.runtime.failures import Collision, InvalidRecord, SetAside
from tests.support.signing import record


class Bench:
    """A batch of numbers, and a store that refuses some of them: `refused[number]` is what it raises for that one."""

    def __init__(self, refused: dict[int, Exception]) -> None:
        self.refused = refused
        self.tried: list[list[int]] = []
        self.applied: list[int] = []
        self.letters: list[tuple[int, str]] = []
        metrics = ConsumerMetrics(CollectorRegistry())
        self.holding = Holding("a.topic", metrics)
        self.isolation: Isolation[int] = Isolation(
            "a.topic", process=self._process, set_aside=self._set_aside, holding=self.holding, metrics=metrics
        )

    async def _process(self, values: Sequence[int]) -> None:
        self.tried.append(list(values))
        named = {}
        for place, value in enumerate(values):
            error = self.refused.get(value)
            if isinstance(error, InvalidRecord):
                named[place] = error
            elif error is not None:
                raise error
        if named:
            raise SetAside(named)
        self.applied += values

    async def _set_aside(self, letters: Sequence[DeadLetter], _epoch: int, _found_alone: bool) -> None:
        self.letters += [(letter.record.offset, letter.error.reason) for letter in letters]

    async def apply(self, count: int) -> int:
        return await self.isolation.apply([(record(b"", offset=n), n) for n in range(count)], 0)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding_module, "BACKOFF_FIRST", 0.0)
    monkeypatch.setattr(isolation_module, "BACKOFF_FIRST", 0.0)


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_is_refused_and_why_the_others_are_applied_once_and_in_order(seed: int) -> None:
    random = Random(seed)
    count = random.randint(1, 60)
    kinds: list[Any] = [asyncpg.CheckViolationError("x"), Collision("x"), InvalidRecord("named", "x")]
    refused = {number: random.choice(kinds) for number in range(count) if random.random() < random.choice([0.05, 0.6])}
    bench = Bench(refused)
    good = [number for number in range(count) if number not in refused]
    assert await bench.apply(count) == len(good)
    assert bench.applied == good
    assert sorted(number for number, _ in bench.letters) == sorted(refused)
    for number, reason in bench.letters:
        assert reason == ("named" if isinstance(refused[number], InvalidRecord) else "cannot_be_applied")
    assert bench.holding.why is None


async def test_one_among_a_thousand_is_found_in_some_twenty_tries() -> None:
    bench = Bench({700: asyncpg.CheckViolationError("x")})
    await bench.apply(1_000)
    assert len(bench.tried) < 2 * 10 + TRIES_ALONE + 2


async def test_one_that_fails_alone_and_then_succeeds_is_not_set_aside() -> None:
    """What it collided with was a rival's doing, and passed."""
    bench = Bench({1: asyncpg.UniqueViolationError("x")})
    process, left = bench._process, 3

    async def passing(values: Sequence[int]) -> None:
        nonlocal left
        if values == [1]:
            left -= 1
            if not left:
                bench.refused.clear()
        await process(values)

    bench.isolation._process = passing
    assert await bench.apply(4) == 4
    assert (bench.applied, bench.letters) == ([0, 1, 2, 3], [])


async def test_a_bug_is_not_split() -> None:
    bench = Bench({2: KeyError("x")})
    with pytest.raises(KeyError):
        await bench.apply(4)
    assert (bench.tried, bench.letters) == ([[0, 1, 2, 3]], [])


async def test_a_batch_whose_partitions_were_handed_over_sets_nothing_aside() -> None:
    bench = Bench({0: asyncpg.CheckViolationError("x")})
    bench.holding.epoch = 1
    with pytest.raises(BatchAbandoned):
        await bench.apply(1)
    assert bench.letters == []
