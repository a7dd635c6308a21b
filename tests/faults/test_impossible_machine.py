"""No impossible state blocks processing for ever: random programs of such states, on the real services.

Environment:
    GROUNDSWELL_IMPOSSIBLE_EXAMPLES: the number of programs, different ones every time. Without it a few, always the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.impossible import acts
from tests.faults.impossible.machine import Ground, ImpossibleMachine
from tests.faults.impossible.parts import parts_of_world
from tests.faults.world import World

EXAMPLES = int(os.environ.get("GROUNDSWELL_IMPOSSIBLE_EXAMPLES", "0"))
SEED = 1

SETTINGS = settings(
    max_examples=EXAMPLES or 4,
    stateful_step_count=8,
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    # Real services: a failing program is not shrunk, because each try takes seconds and finds another state.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[ImpossibleMachine]]:
    # hypothesis calls from outside any event loop, so the system has a loop of its own.
    with asyncio.Runner() as runner:
        world = World(tmp_path)
        runner.run(world.start())
        try:
            ground = Ground(parts_of_world(world), runner)
            runner.run(ground.start())

            class OnThisGround(ImpossibleMachine):
                pass

            OnThisGround.ground = ground
            yield OnThisGround if EXAMPLES else seed(SEED)(OnThisGround)
            runner.run(ground.stop())
        finally:
            runner.run(world.stop())


@pytest.mark.usefixtures("needs_apache")
def test_whatever_is_written_by_hand_others_are_counted_and_what_was_hit_is_right_again(
    machine: type[ImpossibleMachine],
) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)


def test_every_act_says_which_part_it_works_on() -> None:
    assert {act.part for act in acts().values()} == {"postgres", "redis", "kafka"}
    assert all(name == act.name and name == name.lower() for name, act in acts().items())
