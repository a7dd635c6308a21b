"""Metrics of verify; the consumer's own are in shared/kafka/consuming/metrics.py."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.verify.deciding.outcome import UNKNOWN
from shared.contract.states import SignatureState

_NOT_APPLICABLE: Final = [
    UNKNOWN,
    *(state for state in SignatureState if state not in (SignatureState.SUBMITTED, SignatureState.PENDING)),
]
"""States in which a command can have no effect; in ``pending`` every command has one."""


class VerifyMetrics:
    """The metrics of one verify process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decided = Counter(
            "groundswell_verify_signatures",
            "Commands decided, by outcome (verified, pending, duplicate, rejected, withdrawn, invalidated) and reason."
            " Replays are not counted again",
            ["outcome", "reason"],
            registry=registry,
        )
        self.replays = Counter(
            "groundswell_verify_replays",
            "Commands that had been decided before: redelivered after a crash or a rebalance, or retried by clients",
            registry=registry,
        )
        self.not_applicable = Counter(
            "groundswell_verify_changes_not_applicable",
            "Confirm, withdraw, invalidate or erase commands that had no effect, by the state of their signature (unknown:"
            " there is none; duplicate: the original is unknown). ingest refuses nearly all of them; the ones here crossed"
            " another command on the way",
            ["reason"],
            registry=registry,
        )
        for reason in _NOT_APPLICABLE:
            self.not_applicable.labels(reason=reason)
        self.mismatched = Counter(
            "groundswell_verify_commands_mismatched",
            "Commands without effect because their signature has another signer (signer_key) or petition (petition_id) than"
            " the record says",
            ["reason"],
            registry=registry,
        )
        for reason in ("signer_key", "petition_id"):
            self.mismatched.labels(reason=reason)
        self.erasures = Counter(
            "groundswell_verify_erasures",
            "Signatures whose signer was erased by an operator; the count stays",
            registry=registry,
        )
        self.lane_taken = Counter(
            "groundswell_verify_lane_collisions",
            "Batches rolled back because another verify wrote to the same lane; this is how a zombie is fenced off",
            registry=registry,
        )
        self.store_seconds = Histogram(
            "groundswell_verify_store_seconds",
            "Seconds of a batch's PostgreSQL transaction",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "groundswell_verify_publish_seconds",
            "Seconds until Kafka acknowledged all facts of a batch",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
            registry=registry,
        )
        self.age_seconds = Histogram(
            "groundswell_verify_event_age_seconds",
            "Seconds from a signature's submission to the publication of its decision, for the oldest of each batch",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600),
            registry=registry,
        )
