"""What can be watched of tally's counting; the consumer's own metrics are in shared/kafka/consuming/metrics.py."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class TallyMetrics:
    """One instance per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.counted = Counter("groundswell_tally_changes_counted", "Facts that changed a count", registry=registry)
        self.replays = Counter(
            "groundswell_tally_replays_dropped",
            "Facts at or below their fence: delivered again, and rightly not counted again",
            registry=registry,
        )
        self.fence_moved = Counter(
            "groundswell_tally_fences_moved",
            "Steps that Redis refused because a fence was not where this process expected it; they are computed again."
            " A few at every assignment are normal, more mean two processes on one partition",
            registry=registry,
        )
        self.rebuilds = Counter(
            "groundswell_tally_rebuilds",
            "Petitions rebuilt from the ledger, by cause: another_redis (flushed, restarted, failed over), fence_behind"
            " (Redis forgot a count it had confirmed), missing (Redis has not counted what came before: it lost a petition"
            " since the last start, or evicts, which it must not), first_count (a partition or petition that tally never"
            " counted before), command, damaged (a value of the wrong type), fence_unknown (a fence that is no row of the"
            " ledger), drift (the audit found a difference), uncounted (rows of the ledger of which no fact came),"
            " announced and taken_back (something else stood on tallies.updated), milestone (one could not be proved)",
            ["cause"],
            registry=registry,
        )
        # A count that is there from the start, at 0: a rise from nothing to 1 is none to Prometheus.
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
            "Seconds from a signature's submission (or the command that revoked it) to its being counted; the oldest of"
            " each batch",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600),
            registry=registry,
        )
        self.milestones = Counter("groundswell_tally_milestones_announced", "Milestones published", registry=registry)
        self.unproved = Counter(
            "groundswell_tally_milestones_unproved",
            "Milestones that Redis had as reached and the ledger does not prove: nothing was announced, and the petition is"
            " counted again from the ledger",
            registry=registry,
        )
        self.taken_back = Counter(
            "groundswell_tally_snapshots_taken_back",
            "Times that a snapshot which nobody had counted stood on tallies.updated, and a new epoch was begun above it",
            registry=registry,
        )
        self.snapshots = Counter(
            "groundswell_tally_snapshots_published", "Snapshots put on tallies.updated", registry=registry
        )
        self.snapshots_failed = Counter(
            "groundswell_tally_snapshots_failed",
            "Times that snapshots could not be read or published; they are tried again",
            registry=registry,
        )
        self.snapshots_overtaken = Counter(
            "groundswell_tally_snapshots_overtaken",
            "Times that an older snapshot followed a newer one on tallies.updated, and the newest was published again: a"
            " process that had lost its partitions unawares was late",
            registry=registry,
        )
        self.watch_failures = Counter(
            "groundswell_tally_watch_failures",
            "Times that the check of Redis's identity or of unannounced milestones failed for a passing cause, by cause",
            ["cause"],
            registry=registry,
        )
        self.drift = Gauge(
            "groundswell_tally_drift",
            "Difference between the counts in Redis and the ledger at the same fences, summed without signs over the"
            " petitions of this instance, as the last audit left it. Anything but 0 is wrong",
            registry=registry,
        )
        self.beyond = Gauge(
            "groundswell_tally_ledger_beyond_fences",
            "Ledger rows that are not counted yet, of this instance's petitions. Anything but 0 while there is no lag is"
            " wrong",
            registry=registry,
        )
        self.healed = Counter(
            "groundswell_tally_healed",
            "Petitions whose tally an audit found wrong and put right; the log line audit_drift has what was found",
            registry=registry,
        )
        self.audits = Counter("groundswell_tally_audits", "Audits made, by result", ["result"], registry=registry)
        for result in ("right", "wrong", "not_made"):
            self.audits.labels(result=result)
