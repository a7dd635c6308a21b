"""The rooms in `docs/architecture.md`: what each is for and which others it imports, read from the code.

Needs a checkout: grimp is a development dependency.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICES: Final = ("ingest", "verify", "tally", "notify")
GROUPS: Final = (*SERVICES, "shared")

_LEFT_OUT: Final = {"__main__", "app", "settings", "metrics"}
"""Modules that every service has: `app` imports all its rooms, and all rooms may import the other two."""

Edges = Set[tuple[str, str]]


@cache
def edges() -> frozenset[tuple[str, str]]:
    """Return which rooms import which, as pairs such as (``ingest.signing``, ``shared.kafka``). A room is a folder of a
    service or of shared, or a module beside these folders."""
    graph = grimp.build_graph("services", "shared", cache_dir=None)
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            rooms = _room(module), _room(imported)
            if rooms[0] and rooms[1] and rooms[0] != rooms[1]:
                found.add((rooms[0], rooms[1]))
    return frozenset(found)


def _room(module: str) -> str | None:
    path = module.removeprefix("services.").split(".")
    return ".".join(path[:2]) if len(path) > 1 and path[1] not in _LEFT_OUT else None


def picture() -> str:
    """Return the rooms as a Mermaid flow chart, without arrows that follow from others (`reduced`)."""
    inside = {edge for edge in edges() if _group(edge[0]) == _group(edge[1])}
    across = {(_group(one), _group(other)) for one, other in edges() - inside}
    lines = ["```mermaid", "flowchart TD"]
    for group in GROUPS:
        rooms = _rooms(group)
        lines += [f"  subgraph {group}", *(f'    {_node(room)}["{room.partition(".")[2]}"]' for room in rooms), "  end"]
    lines += [f"  {_node(one)} --> {_node(other)}" for one, other in sorted(reduced(inside))]
    lines += [f"  {one} --> {other}" for one, other in sorted(across)]
    return "\n".join([*lines, "```"])


def table() -> str:
    """Return a table of every room with the first paragraph of its docstring."""
    lines = ["| room | what is in it |", "|---|---|"]
    for group in GROUPS:
        for room in _rooms(group):
            source, path = _source(room)
            said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
            sentence = said.partition("\n\n")[0].replace("\n", " ")
            lines.append(f"| [`{path}`](../{path}) | {sentence} |")
    return "\n".join(lines)


def _source(room: str) -> tuple[Path, str]:
    """Return the file of a room's docstring, and the room's path from the project's root."""
    path = room.replace(".", "/") if _group(room) == "shared" else f"services/{room.replace('.', '/')}"
    if (ROOT / path).is_dir():
        return ROOT / path / "__init__.py", path
    return (ROOT / path).with_suffix(".py"), f"{path}.py"


def _rooms(group: str) -> list[str]:
    return sorted({room for edge in edges() for room in edge if _group(room) == group})


def reduced(all_edges: Edges) -> set[tuple[str, str]]:
    """Return the transitive reduction of the edges. Edges within a cycle stay."""
    behind = reachable(all_edges)
    return {
        (one, other)
        for one, other in all_edges
        if not any(
            other in behind[between] and between not in behind[other] and one not in behind[between]
            for start, between in all_edges
            if start == one and between != other
        )
    }


def reachable(all_edges: Iterable[tuple[str, str]]) -> Mapping[str, set[str]]:
    """Return the nodes that can be reached from each node over at least one edge."""
    behind: dict[str, set[str]] = defaultdict(set)
    for one, other in all_edges:
        behind[one].add(other)
    changed = True
    while changed:
        changed = False
        for nodes in list(behind.values()):
            further = set().union(*(behind.get(node, ()) for node in nodes)) - nodes
            nodes.update(further)
            changed = changed or bool(further)
    return behind


def _group(room: str) -> str:
    return room.partition(".")[0]


def _node(room: str) -> str:
    return room.replace(".", "_")
