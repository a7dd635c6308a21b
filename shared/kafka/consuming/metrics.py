"""The metrics of every batch consumer. Names start with ``groundswell_consumer_``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.runtime.failures import CANNOT_BE_APPLIED, CANNOT_BE_READ


class ConsumerMetrics:
    """The metrics of one batch consumer; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(
            "groundswell_consumer_records", "Valid records that were processed durably", registry=registry
        )
        self.dead_letters = Counter(
            "groundswell_consumer_dead_letters",
            "Records moved to the dead-letter topic, by reason",
            ["reason"],
            registry=registry,
        )
        for reason in (CANNOT_BE_APPLIED, CANNOT_BE_READ):
            self.dead_letters.labels(reason=reason)  # present from the start, so that the alert sees the first one
        self.splits = Counter(
            "groundswell_consumer_splits",
            "Times that a batch or a part of it was halved to find a record that cannot be applied",
            registry=registry,
        )
        self.unreadable_batches = Counter(
            "groundswell_consumer_unreadable_batches",
            "Producer batches that could not be unpacked, each moved to the dead-letter topic as one record",
            registry=registry,
        )
        self.batch_records = Histogram(
            "groundswell_consumer_batch_records",
            "Records per batch; near the maximum, the consumer is working through a backlog",
            buckets=(1, 3, 10, 30, 100, 300, 1000, 2000, 5000),
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "groundswell_consumer_batch_seconds",
            "Seconds from receiving a batch to committing its offsets",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self.lag = Gauge(
            "groundswell_consumer_lag_records",
            "Records not committed yet, by partition; assigned partitions only",
            ["partition"],
            registry=registry,
        )
        self.held = Gauge(
            "groundswell_consumer_held", "1 while a batch is held until a transient error ends", registry=registry
        )
        self.holds = Counter(
            "groundswell_consumer_holds",
            "Times that a step of a batch failed with a transient error and was retried, by cause",
            ["cause"],
            registry=registry,
        )
        self.abandoned = Counter(
            "groundswell_consumer_batches_abandoned",
            "Batches given up uncommitted at a rebalance, a stop or a refused commit; they are redelivered",
            registry=registry,
        )
        self.commit_failures = Counter(
            "groundswell_consumer_commits_refused",
            "Commits refused because the group had given the partitions away: this process was a zombie",
            registry=registry,
        )
        self.rebalances = Counter(
            "groundswell_consumer_rebalances", "Times that partitions were assigned", registry=registry
        )
        self.bugs = Counter(
            "groundswell_consumer_bugs",
            "Unexpected exceptions. Each ends the process, except in decoding: then the record becomes a dead letter",
            registry=registry,
        )
        self.stopped = Gauge(
            "groundswell_consumer_stopped",
            "1 after consumption stopped because too many records could not be read or applied; an operator must act",
            registry=registry,
        )
