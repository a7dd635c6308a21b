"""``groundswell bench SCENARIO … --against REF``: this tree against another commit, in turns on the same machine.

The other commit is checked out beside the benchmark's data, with an environment of its own from its own lock file, and
measures itself with its own benchmark. A turn is one round of every scenario. The order of turns is A B, B A, A B, …, so other
load on the machine, even a growing one, affects both alike. A figure's ratio is the median of the ratios of its pairs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from deploy.local import PROJECT_ROOT
from deploy.local.parts.process import PartFailed
from tests.bench.results.figures import Figure, at_most_times, figure

AT_MOST: Final = 1.03
"""The limit of a CPU figure's ratio to the other commit: above it is a change, not noise."""
JUDGED: Final = "µs"
"""The unit of the figures that are judged. Rates and latencies at full speed depend on other load."""
ROUNDS: Final = 5

Figures = Mapping[str, Mapping[str, Any]]
"""The figures of one turn, by name, as in the document of ``--json``."""


class Tree:
    """A checkout of Groundswell that can measure itself.

    Args:
        root: Where it is.
        name: Its name in the table.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root, self.name = root, name

    def measure(self, options: Sequence[str]) -> Figures:
        """One turn.

        Raises:
            PartFailed: it could not be run.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "figures.json"
            command = [self._root / ".venv/bin/python", "-m", "tests.bench", *options, "--repeat", "1", "--json", file]
            done = subprocess.run(
                command, cwd=self._root, env=_environment(), capture_output=True, text=True, check=False
            )
            if done.returncode not in (0, 1):  # 1: it was measured, and missed a goal
                raise PartFailed(f"{self.name} could not be measured:\n{done.stderr[-4000:]}")
            return {each["name"]: each for each in json.loads(file.read_text(encoding="utf-8"))["figures"]}


def this_tree() -> Tree:
    """The tree that this file is in, with its changes."""
    return Tree(PROJECT_ROOT, "here")


def other_tree(ref: str, folder: Path, repository: Path = PROJECT_ROOT) -> Tree:
    """A commit of the repository, checked out and set up under `folder`; an existing checkout is used again.

    Raises:
        PartFailed: there is no such commit, or it cannot be set up.
    """
    sha = _run(["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], repository, f"no such commit: {ref}")
    folder = folder.resolve()
    root = folder / sha[:12]
    if not root.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # A clone, not a worktree: when the folder is deleted, nothing of it is left in the repository.
        _run(["git", "clone", "--quiet", "--shared", "--no-checkout", repository, root], folder, "cannot clone")
        _run(["git", "checkout", "--quiet", "--detach", sha], root, f"cannot check out {ref}")
    # `make bench` installs what the benchmark needs; asked for help, it measures nothing.
    _run(["make", "bench", "ARGS=--help", f"PYTHON={sys.executable}"], root, f"cannot set up {ref}")
    return Tree(root, sha[:12])


def compare(here: Tree, other: Tree, options: Sequence[str], rounds: int, told: Callable[[str], None]) -> list[Figure]:
    """The figures of both trees, measured in turns; those in `JUDGED` with `AT_MOST` as their goal.

    Args:
        options: Scenarios and options of ``groundswell bench``, the same for both.
        rounds: Turns of each.
        told: Called with what is measured next.

    Raises:
        PartFailed: one of them could not be measured.
    """
    measured: dict[Tree, list[Figures]] = {here: [], other: []}
    for number in range(rounds):
        for tree in (here, other) if number % 2 == 0 else (other, here):
            told(f"round {number + 1} of {rounds}: {tree.name} …")
            measured[tree].append(tree.measure(options))
    return compared(measured[here], measured[other], other.name)


def compared(here: Sequence[Figures], other: Sequence[Figures], name: str) -> list[Figure]:
    """A figure for each that both trees measured in all their turns, with the median of the turns' ratios.

    Args:
        here, other: The figures, turn by turn.
        name: The other tree's name.
    """
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for ours, theirs in zip(here, other, strict=True):
        for figure_name in ours.keys() & theirs.keys():
            pair = ours[figure_name]["value"], theirs[figure_name]["value"]
            if None not in pair:  # infinite: never reached
                pairs[figure_name].append(pair)
    return [
        _figure(figure_name, here[0][figure_name], pairs[figure_name], name)
        for figure_name in here[0]
        if len(pairs[figure_name]) == len(here)
    ]


def _figure(name: str, document: Mapping[str, Any], pairs: Sequence[tuple[float, float]], other: str) -> Figure:
    goal = at_most_times(AT_MOST, other) if document["unit"] == JUDGED else None
    made = figure(
        name,
        [ours for ours, _ in pairs],
        document["unit"],
        goal,
        peer=other,
        peer_values=[theirs for _, theirs in pairs],
    )
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    ratio = median(ratios) if len(ratios) == len(pairs) else None
    passes = None if goal is None or ratio is None else goal.holds(made.value, ratio)
    return replace(made, ratio=ratio, passes=passes, note="ratio: the median of the rounds'")


def _environment() -> dict[str, str]:
    """Each tree finds its own packages; nothing of ours leaks into it."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _run(command: Sequence[str | Path], folder: Path, failed: str) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PartFailed(f"{failed}\n{done.stderr[-4000:]}".strip())
    return done.stdout.strip()
