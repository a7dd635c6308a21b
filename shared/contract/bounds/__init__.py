"""Limits of all input, the same for all services: what one service accepts, no later one refuses.

`times` has the limits of times, `numbers` those of numbers and lists. `texts` has the lengths of texts, and the one form in
which they are validated, stored and published.
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
