"""docs/architecture.md: its picture shows the real imports, and its walks name existing functions.

When a function moves, change its line in the page: the failure says where a function of that name is now.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.rooms import edges, reachable, reduced

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

WALK = re.compile(r"^<!-- walk: ([^>]*) -->\n(.*?)^<!-- end: walk -->", flags=re.MULTILINE | re.DOTALL)
STEP = re.compile(r"(\d+\.|   - asks) \[`([\w/.]+)`\]\(\.\./([\w/.]+)\) (`[\w.]+`(?:, `[\w.]+`)*): \S.*")


class Step(NamedTuple):
    """One line of a walk: functions, where they are, and whether they are only asked."""

    file: str
    names: tuple[str, ...]
    asked: bool

    @property
    def folder(self) -> str:
        return self.file.rpartition("/")[0]


def steps_of(text: str) -> list[Step]:
    steps = []
    for line in text.splitlines():
        found = STEP.fullmatch(line)
        assert found, f"no step of a walk: {line}"
        assert found[2] == found[3], f"text and link differ: {line}"
        steps.append(Step(found[2], tuple(re.findall(r"`([^`]+)`", found[4])), found[1] == "   - asks"))
    return steps


WALKS = [(said, steps_of(text)) for said, text in WALK.findall(PAGE)]
STEPS = [step for _, steps in WALKS for step in steps]


@cache
def functions_in(file: Path) -> frozenset[str]:
    """Functions and methods of a module, by their names: `judge`, `VerifyStore.apply`."""
    return frozenset(_functions(ast.parse(file.read_text(encoding="utf-8")), ""))


def _functions(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}"
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def where_it_is_now(name: str) -> list[str]:
    """The modules with a function of this name, of whatever class."""
    last = name.rpartition(".")[2]
    return sorted(
        f"{path.relative_to(ROOT)}: {found}"
        for top in ("services", "shared")
        for path in (ROOT / top).rglob("*.py")
        for found in functions_in(path)
        if found.rpartition(".")[2] == last
    )


def test_there_are_the_walks() -> None:
    assert [len(steps) > 5 for _, steps in WALKS] == [True, True, True]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.file}:{step.names[0]}")
def test_every_function_of_a_walk_is_there(step: Step) -> None:
    for name in step.names:
        there = (ROOT / step.file).exists() and name in functions_in(ROOT / step.file)
        assert there, f"no {name} in {step.file}; now perhaps in {where_it_is_now(name)}"


@pytest.mark.parametrize("steps", [steps for said, steps in WALKS if "each folder once" in said], ids=["sign", "view"])
def test_each_folder_is_entered_once(steps: list[Step]) -> None:
    entered = [folder for folder, _ in groupby(step.folder for step in steps if not step.asked)]
    assert len(entered) == len(set(entered)), entered


def drawn() -> set[tuple[str, str]]:
    """The arrows between rooms of the picture."""
    return set(re.findall(r"^  (\w+_\w+) --> (\w+_\w+)$", PAGE, flags=re.MULTILINE))


def test_the_picture_shows_every_import_between_rooms_and_no_other() -> None:
    real = {(one.replace(".", "_"), other.replace(".", "_")) for one, other in edges()}
    inside = {(one, other) for one, other in real if one.partition("_")[0] == other.partition("_")[0]}
    assert drawn() <= inside
    behind = reachable(drawn())
    assert sorted((one, other) for one, other in inside if other not in behind[one]) == []
    across = set(re.findall(r"^  ([a-z]+) --> ([a-z]+)$", PAGE, flags=re.MULTILINE))
    assert across == {(one.partition("_")[0], other.partition("_")[0]) for one, other in real - inside}


def test_an_arrow_that_follows_from_others_is_left_out_and_a_circle_is_not() -> None:
    assert reduced({("a", "b"), ("b", "c"), ("a", "c")}) == {("a", "b"), ("b", "c")}
    circle = {("b", "c"), ("c", "b")}
    assert reduced(circle | {("a", "b"), ("a", "c")}) == circle | {("a", "b"), ("a", "c")}
    assert reduced(circle | {("a", "b"), ("b", "d"), ("a", "d")}) == circle | {("a", "b"), ("b", "d")}
