"""What can be watched of notify, beside the consumer's own metrics (shared/kafka/consuming/metrics.py)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.notify.outbox.failures import Because


class NotifyMetrics:
    """One instance per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.created = Counter(
            "groundswell_notify_deliveries_recorded",
            "Deliveries written: one per milestone and target. Redelivered milestones add none",
            registry=registry,
        )
        self.finished = Counter(
            "groundswell_notify_deliveries",
            "Deliveries that came to an end, by outcome: sent, failed (the server refused it, or it was put off for too"
            " long, or its address is none), folded (another mail names this milestone too), withheld (the petition does"
            " not address the target any more, or nobody knows whether a mail has named it), forged (tally did not decide"
            " the milestone, or the row's id is not that of its fields)",
            ["outcome"],
            registry=registry,
        )
        # A count that is there from the start, at 0: a rise from nothing to 1 is none to Prometheus.
        for outcome in ("sent", "failed", "folded", "withheld", "forged"):
            self.finished.labels(outcome=outcome)
        self.refused = Counter(
            "groundswell_notify_milestones_refused",
            "Milestones that waited for their petition and that tally never decided: set aside in milestones_waiting",
            registry=registry,
        )
        self.readdressed = Counter(
            "groundswell_notify_readdressed",
            "Mails that went to the address that the petition's target has now, not to the one in their row",
            registry=registry,
        )
        self.requeued = Counter(
            "groundswell_notify_requeued",
            "Failed deliveries that became due again, by cause: address (their target has another one), target (the petition"
            " addresses it again, perhaps under another id), command (`groundswell deliveries retry`)",
            ["cause"],
            registry=registry,
        )
        for because in Because:
            self.requeued.labels(cause=because.value)
        self.mail_bugs = Counter(
            "groundswell_notify_mail_bugs",
            "Unexpected exceptions about one mail. It is put off, or stays under its lease; the others go on",
            registry=registry,
        )
        self.deferred = Counter(
            "groundswell_notify_deferrals",
            "Times that a mail was put off: the server asked for it (4xx), or the connection broke during the mail",
            registry=registry,
        )
        self.replies = Counter(
            "groundswell_notify_smtp_replies",
            "What a mail transaction ended with, by class: 2xx, 4xx, 5xx, cut (connection lost or no answer in time)",
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
            "Seconds from a milestone reached to its mail taken by the server; the time of collecting is in it",
            buckets=(1, 3, 10, 30, 60, 120, 180, 300, 600, 1800, 3600, 6 * 3600, 86_400, 5 * 86_400),
            registry=registry,
        )
        self.leases_expired = Counter(
            "groundswell_notify_leases_expired",
            "Mails taken over from a sender that did not finish: it crashed or hung. Its mail may have gone out already",
            registry=registry,
        )
        self.held = Gauge(
            "groundswell_notify_sender_held",
            "1 while the sender waits for something that is away: the SMTP server, or PostgreSQL",
            registry=registry,
        )
        self.holds = Counter(
            "groundswell_notify_sender_holds",
            "Times that the sender had to wait, by cause",
            ["cause"],
            registry=registry,
        )
        # The five below are the whole table's, whoever reports them: take the maximum over instances, not the sum.
        self.pending = Gauge(
            "groundswell_notify_pending_deliveries",
            "Deliveries not finished, by state: collecting (a surge's further milestones), waiting (a mail to be sent or"
            " sent again), sending",
            ["state"],
            registry=registry,
        )
        self.failed = Gauge(
            "groundswell_notify_failed_deliveries",
            "Deliveries that failed and stay so, by cause: address (another address of the target makes them due again),"
            " server (what it says of content or sender, or it put them off for too long), target (the petition does not"
            " address it any more), withheld. `groundswell deliveries list --state failed` shows them",
            ["cause"],
            registry=registry,
        )
        self.oldest_due = Gauge(
            "groundswell_notify_oldest_due_seconds",
            "How long the most overdue delivery has been due: rising means that mail does not get out",
            registry=registry,
        )
        self.waiting = Gauge(
            "groundswell_notify_milestones_waiting",
            "Milestones of petitions that are not known here, with and without deliveries. Above 0 for more than a minute:"
            " the petition's record on petitions.changed is missing, deleted or unreadable",
            registry=registry,
        )
