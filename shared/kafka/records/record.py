"""A record to publish."""

from __future__ import annotations

from typing import NamedTuple

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """One record to publish. A tuple, because thousands are made per second."""

    key: bytes | None
    value: bytes | None
    headers: Headers
