"""Two trees in turns: pairs and ratios, the judged figures, and that each tree measures itself with its own code."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.parts.process import PartFailed
from tests.bench.against import Tree, compare, compared, other_tree


def turn(**values: float | None) -> dict[str, dict[str, object]]:
    units = {"cpu": "µs", "rate": "1/s"}
    return {name: {"name": name, "value": value, "unit": units[name]} for name, value in values.items()}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine became twice as slow from round to round: medians of each side would hide that, pairs do not.
    here = [turn(cpu=10.2), turn(cpu=20.4), turn(cpu=40.8)]
    there = [turn(cpu=10.0), turn(cpu=20.0), turn(cpu=40.0)]
    (made,) = compared(here, there, "abc")
    assert made.ratio == pytest.approx(1.02)
    assert (made.passes, made.peer, made.value, made.peer_value) == (True, "abc", 20.4, 20.0)


def test_cpu_above_the_bound_is_missed_and_other_units_only_inform() -> None:
    figures = {made.name: made for made in compared([turn(cpu=104, rate=50)], [turn(cpu=100, rate=100)], "abc")}
    assert figures["cpu"].passes is False
    assert figures["rate"].passes is None
    assert figures["rate"].ratio == 0.5


def test_what_one_of_them_did_not_measure_every_time_has_no_ratio() -> None:
    assert compared([turn(cpu=1, rate=1), turn(cpu=1)], [turn(cpu=1, rate=1)] * 2, "abc")[0].name == "cpu"
    assert len(compared([turn(cpu=1, rate=None)], [turn(cpu=1, rate=1)], "abc")) == 1


def a_tree(root: Path, name: str, code: str) -> Tree:
    """A checkout whose benchmark is `code`; it finds the turn's options in ``sys.argv``."""
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    (root / "tests/bench").mkdir(parents=True)
    (root / "tests/bench/__main__.py").write_text("import json, sys\nfile = sys.argv[-1]\n" + code)
    return Tree(root, name)


def test_the_trees_take_turns_from_either_end_with_the_same_options(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        f"open({str(order)!r}, 'a').write(__file__.split('/')[-4] + ' ' + ' '.join(sys.argv[1:-2]) + '\\n')\n"
        "figure = {'name': 'cpu', 'value': 1.0, 'unit': 'µs'}\n"
        "json.dump({'figures': [figure]}, open(file, 'w'))\n"
        "sys.exit(1)\n"  # measured, and a goal of its own was missed
    )
    trees = [a_tree(tmp_path / name, name, code) for name in ("here", "there")]
    (made,) = compare(*trees, ["accept", "--quick"], 3, lambda _: None)
    assert made.ratio == 1
    lines = [line.partition(" ") for line in order.read_text().splitlines()]
    assert [name for name, _, _ in lines] == ["here", "there", "there", "here", "here", "there"]
    assert {options for _, _, options in lines} == {"accept --quick --repeat 1"}


def test_a_tree_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    broken = a_tree(tmp_path / "broken", "abc", "print('no broker', file=sys.stderr)\nsys.exit(2)\n")
    with pytest.raises(PartFailed, match=r"(?s)abc could not be measured.*no broker"):
        broken.measure(["accept"])


def test_there_is_no_other_tree_of_a_commit_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match="no such commit: nowhere-at-all"):
        other_tree("nowhere-at-all", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_other_tree_is_that_commit_set_up_by_its_own_makefile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()

    def git(*words: str) -> None:
        who = ["-c", "user.name=Robin Example", "-c", "user.email=robin@mail.example"]
        subprocess.run(["git", *who, *words], cwd=repository, check=True, capture_output=True)

    git("init")
    for number in (1, 2):
        (repository / "Makefile").write_text(f"bench:\n\techo {number} $(ARGS) >> set-up\n")
        git("add", "Makefile")
        git("commit", "--message", str(number))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # what is there is used again
        tree = other_tree("HEAD~1", Path("against"), repository)
    assert (tmp_path / "against" / tree.name / "set-up").read_text() == "1 --help\n" * 2
