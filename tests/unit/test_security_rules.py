"""Security rules that can be checked in the source: constant time, exceptions with reasons, and a correct threat model."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

import pytest

from services.ingest.web.deadline import ANSWER_SECONDS
from shared.runtime.settings import CommonSettings
from shared.web.connections import HEAD_BYTES, HEAD_FIELDS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for package in ("services", "shared", "deploy") for path in (ROOT / package).rglob("*.py"))
THREATS = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """The source as Python reads it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def function(path: str, name: str) -> ast.FunctionDef:
    """The function or method of that name."""
    (found,) = [
        node for node in ast.walk(tree_of(ROOT / path)) if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return found


def calls(node: ast.AST, name: str) -> list[ast.Call]:
    return [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) == name]


def early_exits(node: ast.AST) -> list[ast.AST]:
    return [one for one in ast.walk(node) if isinstance(one, ast.Break | ast.Return | ast.Raise | ast.Continue)]


def test_credentials_are_compared_in_constant_time_and_all_of_them_always() -> None:
    role = function("services/ingest/access/access.py", "caller")
    (loop,) = [node for node in ast.walk(role) if isinstance(node, ast.For)]
    assert ast.unparse(loop.iter) == "known"
    (known,) = [ast.unparse(node.value) for node in ast.walk(role) if _assigns(node, "known")]
    assert known == "self._proven.of(network) if wait else self._known"
    assert len(calls(loop, "hmac.compare_digest")) == 1
    assert early_exits(loop) == [], "a loop that ends at the first match tells which one it was"
    assert len(calls(role, "hmac.compare_digest")) == len(calls(role, "_digest")) == 1, "only hashes, of one length"
    # What was presented is hashed and nothing else: not compared, not measured.
    compared = {ast.unparse(node) for node in ast.walk(role) if isinstance(node, ast.Compare)}
    assert compared == {
        "presented is None",
        "presented is not None",
        "authorization is None",
        "authorization is not None",
        "scheme.lower() != b'bearer'",
        "found is None",
    }


def _assigns(node: ast.AST, name: str) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name


def test_the_check_of_a_signatures_id_takes_the_same_time_whatever_it_is() -> None:
    issued = function("shared/contract/identity.py", "issued_here")
    assert len(calls(issued, "hmac.compare_digest")) == 1
    assert not [node for node in ast.walk(issued) if isinstance(node, ast.Compare)]


def credentials_read(tree: ast.AST) -> Iterator[str]:
    """Where a module reads what only `Access` may."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in (b"authorization", b"x-api-key"):
            yield ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr in ("admin_token", "admin_tokens", "api_keys"):
            yield ast.unparse(node)


def test_only_two_modules_of_the_services_look_at_credentials_one_that_reads_them_and_one_that_compares() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.is_relative_to(ROOT / "services") and list(credentials_read(tree_of(path)))
    }
    assert readers == {"services/ingest/access/access.py", "services/ingest/settings.py"}


def test_every_exception_from_the_security_rules_has_a_reason() -> None:
    rule = re.compile(r"#\s*(?:ruff:\s*)?noqa:\s*([A-Z0-9, ]*\bS\d+[A-Z0-9, ]*?)(?:\s\s+(\S.*))?$")
    found, without = 0, []
    for path in SOURCES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if match := rule.search(line):
                found += 1
                if not match[2]:
                    without.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found
    assert without == []


def test_the_security_rules_are_on_for_all_that_is_delivered() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdigit()] == ["S101"]
    off = [pattern for pattern, rules in lint["per-file-ignores"].items() if any(rule[0] == "S" for rule in rules)]
    assert off == ["tests/**"]


@pytest.mark.parametrize("word", ["csv", "pickle", "marshal", "xml"])
def test_nothing_is_read_or_written_in_forms_that_carry_code(word: str) -> None:
    """No spreadsheet formulas, no pickled objects, no entities: what leaves Groundswell is JSON, HTML, mail and metrics."""
    importing = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            importing += [str(path.relative_to(ROOT)) for module in modules if module.split(".")[0] == word]
    assert importing == []


def test_no_service_sets_a_cookie() -> None:
    """So nothing a browser sends along by itself opens anything, and forged forms gain nothing."""
    setting = [path for path in SOURCES if re.search(r"set.cookie", path.read_text("utf-8"), re.IGNORECASE)]
    assert setting == []


# ---------------------------------------------------------------------------------------------------- the threat model


def test_every_test_that_the_threat_model_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", THREATS)
    assert len(named) >= 20
    missing = []
    for path, test in named:
        file = ROOT / path
        if not file.exists() or (test and f"def {test}(" not in file.read_text("utf-8")):
            missing.append(f"{path}::{test}")
    assert missing == []


def test_the_threat_model_is_one_page_and_every_measure_names_its_test() -> None:
    assert len(THREATS.split()) < 1_500
    (table,) = re.findall(r"## What is done about it\n(.*?)\n## ", THREATS, re.DOTALL)
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 12
    assert [row for row in rows if "`tests/" not in row] == []


def test_the_limits_that_the_threat_model_names_are_the_ones_in_force() -> None:
    assert (HEAD_BYTES, HEAD_FIELDS) == (32 * 1024, 100)
    defaults = CommonSettings.model_fields
    times = (defaults["http_head_seconds"].default, ANSWER_SECONDS, defaults["http_stall_seconds"].default)
    assert "head {:g} s, body {:g} s, untaken answer {:g} s; 32 KiB and 100 fields".format(*times) in THREATS
