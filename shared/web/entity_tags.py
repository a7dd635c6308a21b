"""Conditional requests: whether a header names the state that is there (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_TAG: Final = re.compile(r'\s*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|\Z)')


def matches(condition: str, etag: str | None, *, weakly: bool = False) -> bool:
    """Whether an ``If-Match`` field, or ``If-None-Match``, names the state.

    Args:
        condition: ``*``, or entity tags. What is neither names nothing.
        etag: Of the state; None if there is none.
        weakly: As ``If-None-Match`` compares (RFC 9110, section 8.8.3.2); ``If-Match`` does not.
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
