"""``python -m tests.bench``: see ``--help``, or `groundswell bench`."""

from __future__ import annotations

import contextlib
import fcntl
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from deploy.local import STATE_DIR
from deploy.local.parts.process import PartFailed
from tests.bench import against
from tests.bench.apart import run_apart
from tests.bench.clients.load import wrk
from tests.bench.machine import commit, machine
from tests.bench.results.figures import Result, show
from tests.bench.scale import Scale

SCENARIOS = ("accept", "road", "drain", "tally", "read", "overload", "sizes", "stages", "notify", "surge", "growth")
"""In the order in which they run."""


def _arguments() -> Namespace:
    parser = ArgumentParser(
        prog="groundswell bench", description="Groundswell against its floors and its alternatives."
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all, if none named"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, commit and figures there")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything runs")
    parser.add_argument("--repeat", type=int, metavar="N", help="measured rounds, interleaved with the peers' (3)")
    parser.add_argument(
        "--against",
        metavar="REF",
        help=f"measure this tree and another commit in turns, {against.ROUNDS} each or --repeat, and print ratios;"
        f" exit code 1 when CPU is above {against.AT_MOST} times the other's",
    )
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR / "bench", help="for data and logs")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.scenarios) - set(SCENARIOS)):
        parser.error(f"no such scenario: {', '.join(unknown)}")
    if arguments.repeat is not None and arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    return arguments


@contextlib.contextmanager
def _turn(console: Console) -> Iterator[None]:
    """Wait until no other benchmark or fault run uses the machine; they take the same lock."""
    with (Path(tempfile.gettempdir()) / "groundswell-world.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("waiting for another benchmark or fault run to end …", highlight=False)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bench(
    scenarios: Sequence[str], scale: Scale, state_dir: Path, result: Result, console: Console, file: Path | None
) -> list[str]:
    """Run the scenarios; return those that failed. Earlier results stay in `result`, and in `file`, which is written after
    each."""
    failed = []
    for name in scenarios:
        began = time.monotonic()
        console.print(f"{name} …", highlight=False)
        try:
            figures = run_apart(name, scale, state_dir)
            result.figures += figures
        except Exception as error:
            failed.append(name)
            console.print(f"{name} [red]failed[/]: ", end="")
            console.print(str(error) if isinstance(error, PartFailed) else repr(error), markup=False, soft_wrap=True)
            if not isinstance(error, PartFailed):
                console.print_exception()
        else:
            console.print(f"{name}: {len(figures)} figures in {time.monotonic() - began:.0f} s", highlight=False)
            if file is not None:
                file.write_text(result.as_json(), encoding="utf-8")
    return failed


def _bench_against(arguments: Namespace, chosen: Sequence[str], result: Result, console: Console) -> None:
    """Both trees in turns; each takes the lock by itself."""
    console.print(f"setting up {arguments.against} …", highlight=False)
    other = against.other_tree(arguments.against, arguments.state_dir / "against")
    result.figures += against.compare(
        against.this_tree(),
        other,
        [*chosen, *(["--quick"] if arguments.quick else [])],
        arguments.repeat or against.ROUNDS,
        lambda what: console.print(what, highlight=False),
    )


def main() -> int:
    """Run scenarios; exit code 1 when a goal was missed, 2 when a scenario could not be run."""
    arguments = _arguments()
    console = Console(stderr=True)
    scale = Scale.quick(arguments.repeat) if arguments.quick else Scale.full(arguments.repeat)
    chosen = [name for name in SCENARIOS if not arguments.scenarios or name in arguments.scenarios]
    result = Result(machine=machine(), commit=commit())
    try:
        wrk()
        failed: list[str] = []
        if arguments.against is not None:
            _bench_against(arguments, chosen, result, console)
        else:
            with _turn(console):
                failed = _bench(chosen, scale, arguments.state_dir, result, console, arguments.json)
    except PartFailed as error:
        print(error, file=sys.stderr)
        return 2
    show(result, Console(width=200) if not sys.stdout.isatty() else Console())
    if arguments.json is not None:
        arguments.json.write_text(result.as_json(), encoding="utf-8")  # also when nothing could be measured
    if failed:
        console.print(f"could not be run: {', '.join(failed)}", style="red", highlight=False)
        return 2
    return 1 if result.missed else 0


if __name__ == "__main__":
    sys.exit(main())
