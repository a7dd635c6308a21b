"""The hot histogram beside the one of prometheus_client."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shared.runtime.histogram import HotHistogram

BUCKETS = (0.002, 0.01, 0.5, 1, 10)


def exposed(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.one_of(st.sampled_from([*BUCKETS, 0.0, 11.0]), st.floats(0, 100))))
def test_it_reads_as_the_other_one_does(amounts: list[float]) -> None:
    hot, other = CollectorRegistry(), CollectorRegistry()
    ours = HotHistogram("waits_seconds", "What one waits.", buckets=BUCKETS, registry=hot)
    theirs = Histogram("waits_seconds", "What one waits.", buckets=BUCKETS, registry=other)
    for amount in amounts:
        ours.observe(amount)
        theirs.observe(amount)
    assert exposed(hot) == exposed(other)
