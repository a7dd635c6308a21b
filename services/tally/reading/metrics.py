"""Metrics of tally's read side. Names start with ``groundswell_tally_read_``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ReadMetrics:
    """The metrics of the JSON API, the streams and the pages; one per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.answers = Counter(
            "groundswell_tally_read_answers",
            "Answers, by resource (tally, organisation, streams, pages) and outcome: ok, not_modified, stale (Redis is away:"
            " the newest known count was served), away (Redis is away and no count is known: 503, or a page without a"
            " count), unknown (404), invalid (422), full and stopping (503: no further streams)",
            ["what", "outcome"],
            registry=registry,
        )
        self.store_failures = Counter(
            "groundswell_tally_read_store_failures",
            "Failed reads of counts, by cause (too_slow: the reader's timeout passed)",
            ["cause"],
            registry=registry,
        )
        self.circuit_open = Gauge(
            "groundswell_tally_read_circuit_open",
            "1 while Redis does not answer: readers get the newest known counts at once, and a single task probes Redis",
            registry=registry,
        )
        self.refused_forms = Counter(
            "groundswell_tally_read_refused_forms",
            "Sign forms that ingest refused and that were shown again with their input, by the problem's name, or other",
            ["reason"],
            registry=registry,
        )
        self.behind = Counter(
            "groundswell_tally_read_store_behind",
            "Counts in Redis that were older than the announced ones, which were served instead. A few in a surge are races;"
            " many mean that Redis lost state and is not rebuilt yet",
            registry=registry,
        )
        self.damaged = Counter(
            "groundswell_tally_read_store_damaged",
            "Counts that could not be read because the stored value is not a tally (wrong type); the announced one was served"
            " instead, and the petition's owner rebuilds the tally",
            registry=registry,
        )
        self.subscribers = Gauge(
            "groundswell_tally_read_stream_subscribers", "Open event streams of this process", registry=registry
        )
        self.snapshots = Counter(
            "groundswell_tally_read_snapshots",
            "Snapshots read from tallies.updated: fresh, stale (a known version), unreadable, or foreign (its key is not its"
            " petition, or its epoch is in the future)",
            ["kind"],
            registry=registry,
        )
        for kind in ("fresh", "stale", "unreadable", "foreign"):
            self.snapshots.labels(kind=kind)
        self.unreadable_batches = Counter(
            "groundswell_tally_read_unreadable_batches",
            "Batches of tallies.updated that could not be unpacked and were skipped",
            registry=registry,
        )
        self.frames = Counter(
            "groundswell_tally_read_stream_frames",
            "Updates for subscribers, by fate: queued, or replaced by a newer one because the subscriber is slow",
            ["fate"],
            registry=registry,
        )
        self.stalled = Counter(
            "groundswell_tally_read_streams_stalled",
            "Streams ended because the subscriber read nothing for too long",
            registry=registry,
        )
