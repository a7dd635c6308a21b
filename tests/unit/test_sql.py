"""No SQL is built from input: every statement that reaches a driver is text of our own source, put together or not.

Read from the source code, not from a run: a statement counts as our own text if it is a literal, or joined from literals,
constants of the module, parameters for which every caller in the module gives such text, and loop variables over such.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRIVER_CALLS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "cursor", "prepare"}
REDIS_CALLS = {"eval", "eval_ro", "register_script", "script_load"}

ELSEWHERE = {
    ("services/notify/outbox/store.py", "CLAIMABLE"): "a constant of services/notify/outbox/claiming.py",
    ("services/notify/outbox/store.py", "OPEN"): "a constant of services/notify/outbox/writing.py",
    ("deploy/migrations/__init__.py", "sql"): "the files of deploy/migrations",
    (
        "deploy/local/parts/postgres.py",
        "name",
    ): "names of databases that tests make; there are no parameters for names in SQL",
}
"""Variables whose text comes from outside their module, and from where."""

SOURCES = sorted(path for package in ("services", "shared", "deploy") for path in (ROOT / package).rglob("*.py"))


class Module:
    """One source file, and which of its expressions are nothing but its own text."""

    def __init__(self, source: str, path: str = "") -> None:
        self.path, self.tree = path, ast.parse(source)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def statements(self) -> Iterator[ast.expr]:
        """What is given to drivers as SQL or Lua."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Call(func=ast.Attribute(attr=name), args=[statement, *_]) if (
                    name in DRIVER_CALLS | REDIS_CALLS
                ):
                    yield statement

    def is_own_text(self, node: ast.expr, seen: frozenset[ast.AST] = frozenset()) -> bool:
        if node in seen:
            return True  # what a name says of itself adds nothing
        seen |= {node}
        match node:
            case ast.Constant(value=str()):
                return True
            case ast.JoinedStr(values=values):
                return all(self.is_own_text(value, seen) for value in values)
            case ast.FormattedValue(value=value) | ast.Starred(value=value):
                return self.is_own_text(value, seen)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return self.is_own_text(left, seen) and self.is_own_text(right, seen)
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_own_text(body, seen) and self.is_own_text(orelse, seen)
            case ast.Call(func=ast.Name(id="_script"), args=[name]):  # reads a .lua file beside the module
                return self.is_own_text(name, seen)
            case ast.Name(id=name):
                return (self.path, name) in ELSEWHERE or self._name_is_own_text(node, seen)
        return False

    def _name_is_own_text(self, name: ast.Name, seen: frozenset[ast.AST]) -> bool:
        sources = [source for scope in self._scopes(name) for source in self._sources(name.id, scope)]
        return bool(sources) and all(source is not None and self.is_own_text(source, seen) for source in sources)

    def _scopes(self, node: ast.AST) -> Iterator[ast.AST]:
        """The function that `node` is in, then the module."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                yield node

    def _sources(self, name: str, scope: ast.AST) -> Iterator[ast.expr | None]:
        """Every expression whose value `name` may have in `scope`; None for an unknown one."""
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            parameters = [parameter.arg for parameter in (*scope.args.args, *scope.args.kwonlyargs)]
            if name in parameters:
                yield from self._given(scope, name, parameters.index(name))
        for node in ast.walk(scope):
            if isinstance(scope, ast.Module) and next(self._scopes(node), None) is not scope:
                continue
            match node:
                case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                    yield value
                case ast.AnnAssign(target=ast.Name(id=found), value=value) if found == name:
                    yield value
                case ast.AugAssign(target=ast.Name(id=found), value=value) if found == name:
                    yield value
                case ast.For(target=target, iter=iterated):
                    yield from _looped(name, target, iterated)

    def _given(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, name: str, position: int
    ) -> Iterator[ast.expr | None]:
        """What the callers in this module give for a parameter."""
        calls = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
            == function.name
        ]
        if not calls or not function.name.startswith("_"):
            yield None  # its callers are in other modules
        for call in calls:
            by_name = [keyword.value for keyword in call.keywords if keyword.arg == name]
            shift = 1 if isinstance(call.func, ast.Attribute) else 0  # self
            yield by_name[0] if by_name else next(iter(call.args[position - shift :]), None)


def _looped(name: str, target: ast.expr, iterated: ast.expr) -> Iterator[ast.expr | None]:
    names = [one.id for one in ast.walk(target) if isinstance(one, ast.Name)]
    if name not in names:
        return
    if not isinstance(iterated, ast.Tuple | ast.List):
        yield None
        return
    for item in iterated.elts:
        parts = item.elts if isinstance(target, ast.Tuple) and isinstance(item, ast.Tuple) else [item]
        yield parts[names.index(name)]


def test_every_statement_is_text_of_our_own_source() -> None:
    built = []
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        module = Module(path.read_text(encoding="utf-8"), name)
        built += [
            f"{name}:{statement.lineno}: {ast.unparse(statement)}"
            for statement in module.statements()
            if not module.is_own_text(statement)
        ]
    assert built == []


def test_the_statements_are_found_at_all() -> None:
    stores = [
        path
        for path in SOURCES
        if path.name in ("store.py", "redis_store.py", "ledger.py") and path.is_relative_to(ROOT / "services")
    ]
    assert len(stores) == 6
    for path in stores:
        assert list(Module(path.read_text(encoding="utf-8")).statements()), path


@pytest.mark.parametrize(
    "source",
    [
        "connection.fetch(f'SELECT {name}')",
        "connection.fetch('SELECT ' + name)",
        "connection.fetch('SELECT {}'.format(name))",
        "connection.fetch('SELECT %s' % name)",
        "def public(name):\n    connection.fetch(f'SELECT {name}')\npublic('x')",
        "def _own(name):\n    connection.fetch(f'SELECT {name}')\n_own(input())",
        "def _own(*, name):\n    connection.fetch(name)\n_own(name='x')\n_own(name=y)",
        "SQL = 'SELECT '\nSQL += input()\nconnection.execute(SQL)",
        "for name in names:\n    connection.execute(f'DROP TABLE {name}')",
        "sql = read()\nconnection.execute(sql)",
        "redis.eval(f'return {name}')",
    ],
)
def test_sql_from_input_is_noticed(source: str) -> None:
    module = Module(source)
    assert [module.is_own_text(statement) for statement in module.statements()] == [False]


@pytest.mark.parametrize(
    "source",
    [
        "connection.fetch('SELECT $1', name)",
        "WHERE = 'TRUE'\nconnection.fetch(f'SELECT {WHERE}')",
        "class Store:\n    def _change(self, what):\n        connection.execute(f'UPDATE {what}')\n"
        "    def sent(self):\n        self._change('x')\n",
        "for kind, sql in (('a', 'SELECT 1'), ('b', 'SELECT 2')):\n    connection.execute(sql, kind)",
    ],
)
def test_parameters_and_own_text_are_fine(source: str) -> None:
    module = Module(source)
    assert [module.is_own_text(statement) for statement in module.statements()] == [True]
