"""Bounds of everything that enters the system, once for all services: what one service accepts, no later one refuses.

`times` has them for moments, `numbers` for numbers and lists, `texts` for texts: their lengths, and the form in which they
are checked, stored and published, which is one and the same.
"""

from __future__ import annotations

from shared.contract.bounds.numbers import MOST_BIGINT, MOST_LANE, MOST_POSITION
from shared.contract.bounds.texts import MOST_CHARACTERS
from shared.contract.bounds.times import (
    COMMAND_AHEAD,
    EARLIEST,
    FACT_AHEAD,
    FAR_END,
    LOG_APPEND_TIME,
    arrival,
    as_time,
    fit,
    in_utc,
    latest_time,
)

__all__ = [
    "COMMAND_AHEAD",
    "EARLIEST",
    "FACT_AHEAD",
    "FAR_END",
    "LOG_APPEND_TIME",
    "MOST_BIGINT",
    "MOST_CHARACTERS",
    "MOST_LANE",
    "MOST_POSITION",
    "arrival",
    "as_time",
    "fit",
    "in_utc",
    "latest_time",
]
