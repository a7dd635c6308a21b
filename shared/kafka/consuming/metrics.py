"""What can be watched of every batch consumer. Names start with ``groundswell_consumer_``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.runtime.failures import CANNOT_BE_APPLIED, CANNOT_BE_READ


class ConsumerMetrics:
    """The metrics of one batch consumer; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "groundswell_consumer_records", "Valid records whose effects are durable", registry=registry
        )
        self.dead_letters = Counter(
            "groundswell_consumer_dead_letters",
            "Records moved to the dead-letter topic, by reason",
            ["reason"],
            registry=registry,
        )
        for reason in (CANNOT_BE_APPLIED, CANNOT_BE_READ):
            self.dead_letters.labels(reason=reason)  # there from the start: the first one pages
        self.splits = Counter(
            "groundswell_consumer_splits",
            "Times that a batch or a part of it was split in halves to find the record that cannot be applied",
            registry=registry,
        )
        self.unreadable_batches = Counter(
            "groundswell_consumer_unreadable_batches",
            "Batches of a producer that could not be unpacked, each moved to the dead-letter topic as a whole",
            registry=registry,
        )
        self.batch_records = Histogram(
            "groundswell_consumer_batch_records",
            "Records per batch: near the maximum means that the consumer works off a backlog",
            buckets=(1, 3, 10, 30, 100, 300, 1000, 2000, 5000),
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "groundswell_consumer_batch_seconds",
            "Seconds from a batch in hand to its offsets committed",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self.lag = Gauge(
            "groundswell_consumer_lag_records",
            "Records on the topic that are not committed yet, by partition; of owned partitions only",
            ["partition"],
            registry=registry,
        )
        self.held = Gauge(
            "groundswell_consumer_held", "1 while a batch waits for something that is away", registry=registry
        )
        self.holds = Counter(
            "groundswell_consumer_holds",
            "Times that a step of a batch failed for a passing cause and was tried again, by cause",
            ["cause"],
            registry=registry,
        )
        self.abandoned = Counter(
            "groundswell_consumer_batches_abandoned",
            "Batches given up uncommitted: a rebalance, a stop, a refused commit. They are done again",
            registry=registry,
        )
        self.commit_failures = Counter(
            "groundswell_consumer_commits_refused",
            "Commits that the group refused because it had moved on: this process had been a zombie",
            registry=registry,
        )
        self.rebalances = Counter(
            "groundswell_consumer_rebalances", "Times that partitions were assigned", registry=registry
        )
        self.bugs = Counter(
            "groundswell_consumer_bugs",
            "Unexpected exceptions. Each ends the process; in reading one record, it sets that record aside instead",
            registry=registry,
        )
        self.stopped = Gauge(
            "groundswell_consumer_stopped",
            "1 when consumption stopped because too many records could not be read or applied; needs a person",
            registry=registry,
        )
