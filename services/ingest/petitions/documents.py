"""Petitions as documents: ETags, merge patches, and differences between states. No I/O."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from pydantic import BaseModel

from shared.contract.events import Organisation, Pause, PetitionChanged, PetitionState, Policy

READ_ONLY: Final = ("petition_id", "changed_at", "version", "mailbox_rules")
"""Fields of `PetitionChanged` that `PetitionState` does not have: ingest sets them."""

_PARTS: Final[dict[str, type[BaseModel]]] = {"organisation": Organisation, "policy": Policy}
"""Fields whose own fields are named one by one; they are never null."""


def etag_of(petition: PetitionChanged) -> str:
    """A strong entity tag (RFC 9110, section 8.8.3), unique for each change, even if it restores an earlier state."""
    return f'"{hashlib.blake2b(petition.model_dump_json().encode(), digest_size=16).hexdigest()}"'


def state_document(petition: PetitionState) -> dict[str, Any]:
    """The state as the JSON that ``PUT`` accepts."""
    return petition.model_dump(mode="json", exclude=set(READ_ONLY))


def merged(document: Any, patch: Any) -> Any:
    """`document` with `patch` applied (RFC 7396, section 2). Neither is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def unknown_fields(patch: dict[str, Any]) -> list[str]:
    """Names in a patch that are not changeable fields. Without this check, removing a misspelt field would do nothing."""
    unknown = [name for name in patch if name not in PetitionState.model_fields]
    objects: dict[str, type[BaseModel]] = {**_PARTS, "paused": Pause}
    for part, model in objects.items():
        named = patch.get(part)
        if isinstance(named, dict):
            unknown += [f"{part}.{name}" for name in named if name not in model.model_fields]
    return unknown


def changed_fields(before: PetitionState | None, after: PetitionState) -> list[str]:
    """Names of the fields whose values differ; for a new petition, of those with other values than the default."""
    new = _flat(after)
    old = _flat(before) if before is not None else {name: _default(name) for name in new}
    return [name for name, value in new.items() if value != old[name]]


def left_out(before: PetitionState, body: PetitionState) -> list[str]:
    """Names of the fields that are set in `before` and missing in `body`, which is to replace it.

    Args:
        before: The present state.
        body: The new state as parsed, which knows the fields that were named.
    """
    missing = []
    for name, value in _flat(before).items():
        field, _, below = name.partition(".")
        part = getattr(body, field) if below else None
        named = field in body.model_fields_set and (part is None or below in part.model_fields_set)
        if not named and value != _default(name):
            missing.append(name)
    return missing


def _flat(petition: PetitionState) -> dict[str, Any]:
    """Values by name: ``title``, ``policy.countries``."""
    found: dict[str, Any] = {}
    for name in PetitionState.model_fields:
        value = getattr(petition, name)
        if name in _PARTS:
            found |= {f"{name}.{below}": getattr(value, below) for below in _PARTS[name].model_fields}
        else:
            found[name] = value
    return found


_REQUIRED: Final = object()


def _default(name: str) -> Any:
    """The default of a field; for a required field, something that equals no value."""
    field, _, below = name.partition(".")
    info = _PARTS[field].model_fields[below] if below else PetitionState.model_fields[field]
    return _REQUIRED if info.is_required() else info.get_default(call_default_factory=True)
