"""Metrics of tally's counting; the consumer's own are in shared/kafka/consuming/metrics.py."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class TallyMetrics:
    """The counting metrics of one tally process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.counted = Counter("groundswell_tally_changes_counted", "Facts that changed a count", registry=registry)
        self.replays = Counter(
            "groundswell_tally_replays_dropped",
            "Redelivered facts, at or below their fence, which were dropped",
            registry=registry,
        )
        self.fence_moved = Counter(
            "groundswell_tally_fences_moved",
            "Steps that Redis refused because a fence was not where this process expected it; they are computed again."
            " A few at each assignment are normal; more mean two processes on one partition",
            registry=registry,
        )
        self.rebuilds = Counter(
            "groundswell_tally_rebuilds",
            "Petitions rebuilt from the ledger, by cause: another_redis (flushed, restarted, failed over), fence_behind"
            " (Redis lost a count that it had confirmed), missing (Redis lacks earlier changes: it lost a petition since the"
            " last start, or evicts keys, which it must not), first_count (a partition or petition that tally had never"
            " counted), command (`groundswell rebuild`), damaged (a value of the wrong type), fence_unknown (a fence without"
            " a row in the ledger), drift (the audit found a difference), uncounted (rows of the ledger whose facts never"
            " came), announced and taken_back (tallies.updated held another snapshot), milestone (one could not be proved)",
            ["cause"],
            registry=registry,
        )
        # Each series exists from the start, at 0: Prometheus does not see a first sample of 1 as an increase.
        for cause in (
            "another_redis",
            "fence_behind",
            "missing",
            "first_count",
            "command",
            "damaged",
            "fence_unknown",
            "drift",
            "uncounted",
            "announced",
            "taken_back",
            "milestone",
        ):
            self.rebuilds.labels(cause=cause)
        self.apply_seconds = Histogram(
            "groundswell_tally_apply_seconds",
            "Seconds of the Redis round trips of a batch",
            buckets=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1),
            registry=registry,
        )
        self.age_seconds = Histogram(
            "groundswell_tally_event_age_seconds",
            "Seconds from a signature's submission (or the command that revoked it) until it is counted, for the oldest of"
            " each batch",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600),
            registry=registry,
        )
        self.milestones = Counter("groundswell_tally_milestones_announced", "Milestones published", registry=registry)
        self.unproved = Counter(
            "groundswell_tally_milestones_unproved",
            "Milestones that Redis recorded and the ledger does not prove: they are not announced, and the petition is"
            " rebuilt from the ledger",
            registry=registry,
        )
        self.taken_back = Counter(
            "groundswell_tally_snapshots_taken_back",
            "Snapshots on tallies.updated that the ledger did not prove; each was replaced by one of a new epoch",
            registry=registry,
        )
        self.snapshots = Counter(
            "groundswell_tally_snapshots_published", "Snapshots published to tallies.updated", registry=registry
        )
        self.snapshots_failed = Counter(
            "groundswell_tally_snapshots_failed",
            "Times that snapshots could not be read or published; this is retried",
            registry=registry,
        )
        self.snapshots_overtaken = Counter(
            "groundswell_tally_snapshots_overtaken",
            "Times that an older snapshot followed a newer one on tallies.updated, written by a zombie; the newest is then"
            " published again",
            registry=registry,
        )
        self.watch_failures = Counter(
            "groundswell_tally_watch_failures",
            "Times that the check of Redis's identity or of unannounced milestones failed with a transient error, by cause",
            ["cause"],
            registry=registry,
        )
        self.drift = Gauge(
            "groundswell_tally_drift",
            "Absolute difference between the counts in Redis and the ledger at the same fences, summed over the petitions of"
            " this instance, as the last audit left it. Anything but 0 is wrong",
            registry=registry,
        )
        self.beyond = Gauge(
            "groundswell_tally_ledger_beyond_fences",
            "Ledger rows of this instance's petitions that are not counted yet. Anything but 0 without lag is wrong",
            registry=registry,
        )
        self.healed = Counter(
            "groundswell_tally_healed",
            "Tallies that an audit found wrong and repaired; the log line audit_drift has the finding",
            registry=registry,
        )
        self.audits = Counter(
            "groundswell_tally_audits",
            "Audits, by result (not_made: something was away)",
            ["result"],
            registry=registry,
        )
        for result in ("right", "wrong", "not_made"):
            self.audits.labels(result=result)
