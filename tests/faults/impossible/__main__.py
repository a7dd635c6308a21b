"""``python -m tests.faults.impossible``: plays acts, each on a petition of its own, and says what became of them."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Final

from deploy.local import STATE_DIR
from tests.faults.impossible import acts
from tests.faults.impossible.act import Act, Traces
from tests.faults.impossible.honest import Honest
from tests.faults.impossible.parts import parts_of_world
from tests.faults.impossible.victim import Victim, goes_on, heals
from tests.faults.notes import SACRIFICE
from tests.faults.world import World

_MOST_SECONDS: Final = 180.0
_MOST_LINES: Final = 6


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.faults.impossible", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this act; with * for several; may be repeated")
    parser.add_argument(
        "--pairs", type=int, default=0, help="so many pairs on one petition each, instead of single acts"
    )
    parser.add_argument("--together", type=int, default=1, help="so many at a time, each on its own petition (1)")
    parser.add_argument("--seed", type=int, default=1, help="decides what the acts draw, and the pairs (1)")
    parser.add_argument("--seconds", type=float, default=20, help="for a petition to be right again (20)")
    parser.add_argument("--list", action="store_true", help="print the names of the acts, and end")
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR / "impossible", help="for data and logs")
    return parser.parse_args()


async def _play(world: World, honest: Honest, name: str, chosen: tuple[Act, ...], arguments: Namespace) -> list[str]:
    random = Random(f"{arguments.seed}/{name}")
    parts = parts_of_world(world)
    victim = Victim(parts, f"{SACRIFICE}{name}"[:60])
    await victim.make()
    traces = Traces()
    for act in chosen:
        await act.do(victim, random, traces)
    for service in sorted({act.wakes for act in chosen if act.wakes}):
        await parts.restart(service)
    wrong = await honest.sign_ten(within=arguments.seconds)
    wrong += await heals(victim, within=arguments.seconds)
    if not wrong:
        wrong = [f"afterwards: {line}" for line in await goes_on(victim, within=arguments.seconds)]
    for act in chosen:
        if act.undo is not None:
            await act.undo(victim)
    return wrong + [f"not ready: {line}" for line in await world.not_ready()]


async def _main(arguments: Namespace) -> int:
    known = {
        name: act
        for name, act in acts().items()
        if not arguments.only or any(fnmatchcase(name, pattern) for pattern in arguments.only)
    }
    rounds: list[tuple[str, tuple[Act, ...]]] = [(name, (act,)) for name, act in known.items()]
    if arguments.pairs:
        every = list(combinations(known.values(), 2))
        Random(arguments.seed).shuffle(every)
        rounds = [(f"pair-{number}", pair) for number, pair in enumerate(every[: arguments.pairs])]
    failed = 0
    while rounds:
        async with World(arguments.state_dir) as world:
            honest = Honest(parts_of_world(world), "honest")
            await honest.make()
            whole = True
            while rounds and whole:  # lasting damage must not count against the next acts
                now, rounds = rounds[: arguments.together], rounds[arguments.together :]
                found = await asyncio.gather(*(_told(world, honest, name, chosen, arguments) for name, chosen in now))
                failed += sum(found)
                whole = not await honest.sign_ten(within=30) and not await world.not_ready()
            if not whole:
                print(f"a new world: {', '.join(await world.not_ready()) or 'signatures are held'}", flush=True)
    print(f"{failed} failed")
    return 1 if failed else 0


async def _told(world: World, honest: Honest, name: str, chosen: tuple[Act, ...], arguments: Namespace) -> bool:
    """Play, and print what came of it; whether something is wrong."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(_MOST_SECONDS):
            wrong = await _play(world, honest, name, chosen, arguments)
    except Exception:
        wrong = [traceback.format_exc(limit=-3)]
    title = " + ".join(act.name for act in chosen)
    lines = [f"{'FAILED' if wrong else 'ok    '} {title} ({time.monotonic() - began:.1f} s)"]
    lines += [f"         {line}" for line in wrong[:_MOST_LINES]]
    lines += [f"         {process.name} has ended" for process in world.service_processes if not process.running]
    print("\n".join(lines), flush=True)
    return bool(wrong)


def main() -> int:
    """Play; exit code 1 when something did not heal."""
    arguments = _arguments()
    if arguments.list:
        print("\n".join(acts()))
        return 0
    return asyncio.run(_main(arguments))


if __name__ == "__main__":
    sys.exit(main())
