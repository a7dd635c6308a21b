"""A case of an alert: series in which it must fire, and series in which it must not.

Values are written as promtool reads them: ``0+1x20`` is 0 and then twenty times one more, ``_x5`` five scrapes without a
value, one value every 15 seconds. So ``x40`` lasts ten minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

Series = dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One alert.

    Attributes:
        fires: series in which it fires `at` that time.
        labels: of the alert that fires, without its name and what the rule gives every alert; one dictionary for each.
        stays: further series, each set of which must not make it fire at any of the times in `QUIET_AT`.
    """

    alert: str
    at: str
    fires: Series
    stays: tuple[Series, ...]
    labels: tuple[dict[str, str], ...] = field(default=({},))


QUIET_AT: Final = ("2m", "4m", "8m", "15m", "25m", "45m")
"""When the cases of silence are looked at."""


def buckets(name: str, labels: str, rates: dict[str, int]) -> Series:
    """A histogram's buckets, each of which grows by so much at every scrape."""
    return {f'{name}_bucket{{{labels},le="{bound}"}}': f"0+{rate}x240" for bound, rate in rates.items()}
