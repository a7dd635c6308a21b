"""Whether a changed JSON schema still reads the events that are on the topics, and is read by those who subscribe.

Both directions matter: topics keep events for up to a year, and subscribers are not updated when we are. So a field may be
added if it is optional, and nothing may be removed, renamed, retyped, newly required, no longer required, or narrowed.
"""

from __future__ import annotations

from typing import Any

_SAME = ("type", "format", "const", "pattern")
_AT_MOST = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_AT_LEAST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Changes in `new` that break events or readers of `old`, one sentence each; empty if there are none."""
    return _breaks("", old, new, old.get("$defs", {}), new.get("$defs", {}))


def _breaks(
    path: str, old: dict[str, Any], new: dict[str, Any], old_defs: dict[str, Any], new_defs: dict[str, Any]
) -> list[str]:
    old, new = _resolved(old, old_defs), _resolved(new, new_defs)
    here = path or "the event"
    found = [
        f"{here}: {name} was {old.get(name)!r} and is {new.get(name)!r}" for name in _SAME if _differs(name, old, new)
    ]
    found += [f"{here}: {name} was raised" for name in _AT_MOST if _tightened(name, old, new, up=True)]
    found += [f"{here}: {name} was lowered" for name in _AT_LEAST if _tightened(name, old, new, up=False)]
    if gone := set(map(str, old.get("enum", []))) - set(map(str, new.get("enum", old.get("enum", [])))):
        found.append(f"{here}: no longer takes {sorted(gone)}")
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        found.append(f"{path}.{name}: is required now")
    for name in sorted(set(old.get("required", [])) - set(new.get("required", []))):
        found.append(f"{path}.{name}: may be missing now")
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        found.append(f"{here}: no longer takes other fields")
    for name, schema in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{path}.{name}: is gone")
        else:
            found += _breaks(f"{path}.{name}", schema, new["properties"][name], old_defs, new_defs)
    for part in ("items", "additionalProperties"):
        if isinstance(old.get(part), dict):
            if not isinstance(new.get(part), dict):
                found.append(f"{here}: {part} is no schema any more")
            else:
                found += _breaks(f"{path}[]", old[part], new[part], old_defs, new_defs)
    if "anyOf" in old:
        choices = new.get("anyOf", [new])
        for choice in old["anyOf"]:
            if all(_breaks(path, choice, other, old_defs, new_defs) for other in choices):
                found.append(f"{here}: no longer takes {choice}")
    return found


def _resolved(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return dict(defs[schema["$ref"].rpartition("/")[2]])
    return schema


def _differs(name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "anyOf" not in old and old.get(name) != new.get(name)


def _tightened(name: str, old: dict[str, Any], new: dict[str, Any], *, up: bool) -> bool:
    if name not in new:
        return False
    return name not in old or (new[name] > old[name] if up else new[name] < old[name])
