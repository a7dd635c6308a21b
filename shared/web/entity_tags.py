"""Conditional requests: whether a precondition matches the current state (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TAG: Final = re.compile(r'\s*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|\Z)')


def matches(condition: str, etag: str | None, *, weakly: bool = False) -> bool:
    """Return whether an ``If-Match`` or ``If-None-Match`` field matches the current state.

    Args:
        condition: ``*`` or entity tags. Anything else matches nothing.
        etag: The entity tag of the current state; None if there is no state.
        weakly: Use weak comparison, as ``If-None-Match`` does and ``If-Match`` does not (RFC 9110, section 8.8.3.2).
    """
    if etag is None or not condition:
        return False
    if condition.strip() == "*":
        return True
    if weakly:
        return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in _tags(condition))
    return etag in _tags(condition)


def _tags(condition: str) -> Iterator[str]:
    place = 0
    while (found := _TAG.match(condition, place)) is not None:
        yield found[1]
        place = found.end()
