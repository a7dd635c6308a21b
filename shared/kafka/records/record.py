"""A record on its way to a topic."""

from __future__ import annotations

from typing import NamedTuple

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """One record to publish. A tuple: thousands are made a second."""

    key: bytes | None
    value: bytes | None
    headers: Headers
