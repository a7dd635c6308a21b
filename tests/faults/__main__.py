"""``python -m tests.faults``: see ``--help``, or `groundswell faults`."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from deploy.local import STATE_DIR
from deploy.local.parts.process import PartFailed
from tests.faults.campaign import play
from tests.faults.catalogue import catalogue
from tests.faults.catalogue.impossible import SINGLE
from tests.faults.fault import Fault
from tests.faults.report import Report, last_line


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="groundswell faults", description="Surges under faults; the count must be exact.")
    parser.add_argument("--runs", type=int, default=16, help="how many runs (16)")
    parser.add_argument("--seed", type=int, default=1, help="decides people, order and faults of every run (1)")
    parser.add_argument("--first", type=int, default=1, help="number of the first run: to repeat a later one alone (1)")
    parser.add_argument("--signatures", type=int, default=20_000, help="submissions of a run's surge (20,000)")
    parser.add_argument("--rate", type=float, default=1_200, help="submissions a second, at most (1,200)")
    parser.add_argument("--faults", type=int, default=6, help="faults in a run (6)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="KIND",
        help="draw from this fault only; may be repeated (impossible-NAME: NAME of `python -m tests.faults.impossible --list`)",
    )
    parser.add_argument("--list", action="store_true", help="print the kinds of faults, and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR / "faults", help="for data, logs and timeline")
    arguments = parser.parse_args()
    for name in ("runs", "signatures", "faults", "first"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return arguments


def _chosen(only: list[str] | None) -> list[Fault]:
    known = catalogue()
    if only is None:
        return list(known.values())
    known |= {fault.kind: fault for fault in SINGLE}
    if unknown := sorted(set(only) - known.keys()):
        raise SystemExit(f"No such fault: {', '.join(unknown)}. `--list` names them all.")
    return [known[kind] for kind in only]


def main() -> int:
    """Run a campaign; exit code 1 when anything was lost, doubled or unexplained, 2 when it could not be run."""
    arguments = _arguments()
    faults = _chosen(arguments.only)
    if arguments.list:
        print("\n".join(sorted(fault.kind for fault in faults)))
        return 0
    try:
        with Report() as report:
            result = asyncio.run(
                play(
                    faults,
                    seed=arguments.seed,
                    runs=arguments.runs,
                    first=arguments.first,
                    signatures=arguments.signatures,
                    rate=arguments.rate,
                    faults=len(faults) if arguments.only else arguments.faults,
                    state_dir=arguments.state_dir,
                    report=report,
                )
            )
    except PartFailed as error:
        print(error, file=sys.stderr)
        return 2
    report.summary(result)
    print(last_line(result))
    if arguments.json:
        print(result.as_json())
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
