"""What can be watched of ingest. Labels are few and fixed; nothing personal is in any of them.

Whether a submission is a retry with an Idempotency-Key that was used before cannot be known here: ingest keeps no state.
verify counts replays.
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
            "Events that Kafka has acknowledged, by the call that brought them",
            ["call"],
            registry=registry,
        )
        self.sign_accepted = self._accepted.labels(call="sign")
        self.batch_accepted = self._accepted.labels(call="batch")
        self.command_accepted = self._accepted.labels(call="command")
        self.petition_accepted = self._accepted.labels(call="petition")
        self.admin_events = Counter(
            "groundswell_ingest_admin_events",
            "Calls of administrators, and of partners about a signature, by what became of them: done, asked (not known),"
            " failed, overtaken, refused (this caller may not)",
            ["call", "outcome"],
            registry=registry,
        )
        self.refused = Counter(
            "groundswell_ingest_refused",
            "Requests, or lines of a batch, that were not accepted, by the problem's name (docs/openapi.json)",
            ["reason"],
            registry=registry,
        )
        for reason in KINDS:
            self.refused.labels(reason=reason)
        self.form_errors = Counter(
            "groundswell_ingest_form_errors",
            "Wrong fields of signers' forms that were not accepted, by field and what is wrong with it",
            ["field", "code"],
            registry=registry,
        )
        self.acknowledged_seconds = Histogram(
            "groundswell_ingest_acknowledged_seconds",
            "Seconds from a signature's request to Kafka's acknowledgement: what a signer waits",
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
            "Clients that went away before their request was whole; nothing of it was accepted",
            registry=registry,
        )
        self.clock_offset_seconds = Gauge(
            "groundswell_ingest_clock_offset_seconds",
            "Seconds that this machine's clock is ahead of another one's, by source: postgres, kafka; NaN: not known",
            ["source"],
            registry=registry,
        )
        requests = Gauge("groundswell_ingest_in_flight_requests", "Requests in work now", registry=registry)
        requests.set_function(in_flight)

    def count_refusal(self, problem: Problem) -> None:
        """One request, or one line of a batch, that was not accepted; of a form, each wrong field."""
        self.refused.labels(reason=problem.code).inc()
        for error in problem.errors:
            if error["field"] in FORM_FIELDS:
                code = error.get("code", "")
                self.form_errors.labels(field=error["field"], code=code if code in FORM_ERRORS else "invalid").inc()
