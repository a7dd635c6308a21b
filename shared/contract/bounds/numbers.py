"""Limits of numbers, and of how many items a list may have."""

from __future__ import annotations

from typing import Final

MOST_LANE: Final = 2**31 - 1
"""PostgreSQL's integer."""

MOST_POSITION: Final = 2**52
"""Numbers in Lua and JavaScript are doubles, exact up to 2**53: the positions after the largest one are exact too."""

MOST_BIGINT: Final = 2**63 - 1
"""PostgreSQL's bigint."""

MOST_SUPPORTERS: Final = 10_000_000_000
"""The highest milestone: more than there are people."""

MOST_MILESTONES: Final = 100
MOST_TARGETS: Final = 50
MOST_BLOCKED_DOMAINS: Final = 10_000
