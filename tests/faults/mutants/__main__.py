"""``python -m tests.faults.mutants``: see ``--help``."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local import STATE_DIR
from deploy.local.parts.process import PartFailed
from tests.faults.mutants import mutants
from tests.faults.mutants.directed import directed
from tests.faults.mutants.play import Outcome, play


def _arguments() -> Namespace:
    known = sorted(mutants())
    parser = ArgumentParser(
        prog="python -m tests.faults.mutants",
        description="Breaks the protocol on purpose; the fault harness has to find every break, and no fault without one.",
    )
    parser.add_argument("--only", action="append", choices=known, help="this mutant; may be repeated")
    parser.add_argument("--control", action="store_true", help="play the schedules against the product alone")
    parser.add_argument("--signatures", type=int, default=3_000, help="submissions of a run's surge (3,000)")
    parser.add_argument("--seed", type=int, default=1, help="decides people and their order (1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR / "mutants", help="for data, logs and timelines")
    return parser.parse_args()


def main() -> int:
    """Play; exit code 1 when a mutant is not found out or the product fails, 2 when nothing could be played."""
    arguments = _arguments()
    schedules = directed()
    chosen = [(mutant, schedules[name]) for name, mutant in mutants().items() if name in (arguments.only or schedules)]
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        outcomes = asyncio.run(
            play(
                chosen,
                seed=arguments.seed,
                signatures=arguments.signatures,
                control_only=arguments.control,
                state_dir=arguments.state_dir,
                tell=lambda line: console.print(line, style="dim", highlight=False, markup=False),
            )
        )
    except PartFailed as error:
        print(error, file=sys.stderr)
        return 2
    _report(console, outcomes)
    ok = len(outcomes) == len(chosen) and all(outcome.ok for outcome in outcomes)
    if arguments.json:
        print(json.dumps({"ok": ok, "mutants": [outcome.as_json() for outcome in outcomes]}))
    else:
        console.print(f"logs and timelines: {arguments.state_dir}", style="dim")
    return 0 if ok else 1


def _report(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for heading in ("mutant", "faults", "the product", "the mutant is caught by", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", overflow="fold")
    for outcome in outcomes:
        table.add_row(
            f"{outcome.mutant.name}\n{outcome.mutant.broken}",
            "\n".join(outcome.faults),
            "FAILS" if outcome.control else "passes",
            _caught(outcome),
            f"{outcome.seconds:.0f}",
        )
    console.print(table)
    for outcome in outcomes:
        for line in outcome.control:
            console.print(f"the product, {outcome.mutant.name}: {line}", style="red", highlight=False, markup=False)
        if outcome.violations is not None and outcome.caught_by is None:
            for line in outcome.violations or ["nothing was wrong"]:
                console.print(f"{outcome.mutant.name}: {line}", style="red", highlight=False, markup=False)


def _caught(outcome: Outcome) -> str:
    if outcome.violations is None:
        return "not played"
    return outcome.caught_by or "NOT CAUGHT"


if __name__ == "__main__":
    sys.exit(main())
