"""The order in which the parts of a service run, finish and close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.runtime.crash import CrashSwitch
from shared.runtime.parts import Part, running


class Noting:
    """Makes parts that note what is done with them, in its order."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def part(self, name: str) -> Part:
        async def run() -> None:
            self.noted.append(f"{name} runs")
            try:
                await asyncio.Event().wait()
            finally:
                self.noted.append(f"{name} ran")

        return Part(run=run, finish=self.noting(f"{name} finishes"), close=self.noting(f"{name} closes"))

    def noting(self, what: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            self.noted.append(what)

        return note


async def test_every_part_runs_until_all_have_finished_and_the_last_one_closes_first() -> None:
    noting = Noting()
    async with running([noting.part("a"), noting.part("b")], CrashSwitch()):
        await asyncio.sleep(0)
        assert noting.noted == ["a runs", "b runs"]
        noting.noted.clear()
    assert noting.noted[:2] == ["b finishes", "a finishes"]
    assert sorted(noting.noted[2:4]) == ["a ran", "b ran"]
    assert noting.noted[4:] == ["b closes", "a closes"]


async def test_a_part_does_what_it_has_and_nothing_else() -> None:
    noting = Noting()
    parts = [Part(), Part(stop=pytest.fail), Part(close=noting.noting("closes"))]
    async with running(parts, CrashSwitch()):
        pass
    assert noting.noted == ["closes"]


async def test_a_part_that_cannot_close_keeps_no_other_from_closing() -> None:
    async def broken() -> None:
        raise KeyError("a bug")

    noting = Noting()
    with pytest.raises(KeyError):
        async with running([noting.part("a"), Part(close=broken), Part(finish=broken)], CrashSwitch()):
            await asyncio.sleep(0)
    assert noting.noted == ["a runs", "a finishes", "a ran", "a closes"]


async def test_what_a_part_raises_while_it_runs_goes_to_the_crash_switch_at_once() -> None:
    async def broken() -> None:
        raise KeyError("a bug")

    crash, stopped = CrashSwitch(), asyncio.Event()
    crash.connect(stopped.set)
    async with asyncio.timeout(60), running([Part(run=broken)], crash):
        await stopped.wait()
    assert isinstance(crash.bug, KeyError)
