"""Metrics of ingest. Labels have few, fixed values and hold no personal data.

ingest keeps no state, so it cannot tell whether an Idempotency-Key was used before; verify counts replays.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.ingest.problems import KINDS
from shared.contract.form_errors import FORM_ERRORS, FORM_FIELDS
from shared.web.problems import Problem


class IngestMetrics:
    """The metrics of one ingest process."""

    def __init__(self, registry: CollectorRegistry, *, in_flight: Callable[[], int]) -> None:
        self._accepted = Counter(
            "groundswell_ingest_accepted",
            "Events that Kafka has acknowledged, by the call that submitted them",
            ["call"],
            registry=registry,
        )
        self.sign_accepted = self._accepted.labels(call="sign")
        self.batch_accepted = self._accepted.labels(call="batch")
        self.command_accepted = self._accepted.labels(call="command")
        self.petition_accepted = self._accepted.labels(call="petition")
        self.admin_events = Counter(
            "groundswell_ingest_admin_events",
            "Calls of administrators, and of partners about a signature, by outcome: done, asked (not known yet), failed,"
            " overtaken, refused (the caller is not allowed to)",
            ["call", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "groundswell_ingest_refused",
            "Requests, or lines of a batch, that were refused, by the problem's name (docs/openapi.json)",
            ["reason"],
            registry=registry,
        )
        for reason in KINDS:
            self.refused.labels(reason=reason)
        self.form_errors = Counter(
            "groundswell_ingest_form_errors",
            "Invalid fields of refused sign forms, by field and error code",
            ["field", "code"],
            registry=registry,
        )
        self.acknowledged_seconds = Histogram(
            "groundswell_ingest_acknowledged_seconds",
            "Seconds from a signature's request to Kafka's acknowledgement, which is how long the signer waits",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=registry,
        )
        self.batch_lines = Histogram(
            "groundswell_ingest_batch_lines",
            "Lines per batch",
            buckets=(1, 3, 10, 30, 100, 300, 1000),
            registry=registry,
        )
        self.disconnected = Counter(
            "groundswell_ingest_disconnected",
            "Clients that disconnected before their request was complete; nothing of it was accepted",
            registry=registry,
        )
        self.clock_offset_seconds = Gauge(
            "groundswell_ingest_clock_offset_seconds",
            "Seconds that this machine's clock is ahead of a source's, by source: postgres, kafka; NaN: not known",
            ["source"],
            registry=registry,
        )
        requests = Gauge("groundswell_ingest_in_flight_requests", "Requests in progress", registry=registry)
        requests.set_function(in_flight)

    def count_refusal(self, problem: Problem) -> None:
        """Count a refused request or line of a batch, and each invalid field if it was a form."""
        self.refused.labels(reason=problem.code).inc()
        for error in problem.errors:
            if error["field"] in FORM_FIELDS:
                code = error.get("code", "")
                self.form_errors.labels(field=error["field"], code=code if code in FORM_ERRORS else "invalid").inc()
