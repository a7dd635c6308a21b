"""Metrics of notify; the consumer's own are in shared/kafka/consuming/metrics.py."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.notify.outbox.failures import Because


class NotifyMetrics:
    """The metrics of one notify process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.created = Counter(
            "groundswell_notify_deliveries_recorded",
            "Deliveries recorded: one per milestone and target. Redelivered milestones add none",
            registry=registry,
        )
        self.finished = Counter(
            "groundswell_notify_deliveries",
            "Deliveries finished, by outcome: sent, failed (refused by the server, deferred for too long, or without a valid"
            " address), folded (another mail names this milestone too), withheld (the petition no longer addresses the"
            " target, or it is not known whether a mail has named the milestone), forged (tally did not decide the"
            " milestone, or the row's id does not match its fields)",
            ["outcome"],
            registry=registry,
        )
        # Each series exists from the start, at 0: Prometheus does not see a first sample of 1 as an increase.
        for outcome in ("sent", "failed", "folded", "withheld", "forged"):
            self.finished.labels(outcome=outcome)
        self.refused = Counter(
            "groundswell_notify_milestones_refused",
            "Milestones waiting for their petition that tally never decided; they are set aside in milestones_waiting",
            registry=registry,
        )
        self.readdressed = Counter(
            "groundswell_notify_readdressed",
            "Mails sent to the target's present address instead of the one in their row",
            registry=registry,
        )
        self.requeued = Counter(
            "groundswell_notify_requeued",
            "Failed deliveries that became due again, by cause: address (the target's was changed), target (the petition"
            " addresses it again, perhaps under another id), command (`groundswell deliveries retry`)",
            ["cause"],
            registry=registry,
        )
        for because in Because:
            self.requeued.labels(cause=because.value)
        self.mail_bugs = Counter(
            "groundswell_notify_mail_bugs",
            "Unexpected exceptions about one mail. It is deferred, or stays leased; other mails are not affected",
            registry=registry,
        )
        self.deferred = Counter(
            "groundswell_notify_deferrals",
            "Times that a mail was deferred: the server answered 4xx, or the connection broke during the mail",
            registry=registry,
        )
        self.replies = Counter(
            "groundswell_notify_smtp_replies",
            "Final replies to mail transactions, by class: 2xx, 4xx, 5xx, cut (connection lost or no answer in time)",
            ["class"],
            registry=registry,
        )
        self.smtp_seconds = Histogram(
            "groundswell_notify_smtp_seconds",
            "Seconds of one mail transaction, from MAIL FROM to the server's last reply",
            buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
            registry=registry,
        )
        self.age_seconds = Histogram(
            "groundswell_notify_age_seconds",
            "Seconds from a milestone being reached to the server accepting its mail; includes the time of collecting",
            buckets=(1, 3, 10, 30, 60, 120, 180, 300, 600, 1800, 3600, 6 * 3600, 86_400, 5 * 86_400),
            registry=registry,
        )
        self.leases_expired = Counter(
            "groundswell_notify_leases_expired",
            "Mails taken over from a sender that crashed or hung; they may have been sent already",
            registry=registry,
        )
        self.held = Gauge(
            "groundswell_notify_sender_held",
            "1 while the sender is held because the SMTP server or PostgreSQL is away",
            registry=registry,
        )
        self.holds = Counter(
            "groundswell_notify_sender_holds",
            "Times that the sender was held, by cause",
            ["cause"],
            registry=registry,
        )
        # These cover the whole table, whichever instance reports them: take the maximum over instances, not the sum.
        self.pending = Gauge(
            "groundswell_notify_pending_deliveries",
            "Unfinished deliveries, by state: collecting (waiting for further milestones of a surge), waiting (for a first or"
            " another attempt), sending",
            ["state"],
            registry=registry,
        )
        self.failed = Gauge(
            "groundswell_notify_failed_deliveries",
            "Failed deliveries, by cause: address (a new address of the target makes them due again), server (refused for"
            " content or sender, or deferred for too long), target (the petition no longer addresses it), withheld."
            " `groundswell deliveries list --state failed` shows them",
            ["cause"],
            registry=registry,
        )
        self.oldest_due = Gauge(
            "groundswell_notify_oldest_due_seconds",
            "Seconds that the most overdue delivery has been due; a rise means that mail is not going out",
            registry=registry,
        )
        self.waiting = Gauge(
            "groundswell_notify_milestones_waiting",
            "Milestones, with and without deliveries, of petitions that are unknown to this instance. Above 0 for more than a"
            " minute: the petition's record on petitions.changed is missing, deleted or unreadable",
            registry=registry,
        )
