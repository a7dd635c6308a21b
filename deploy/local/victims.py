"""What `groundswell kill` can kill, and where the effect shows: one entry per row of the table in `docs/operating.md`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deploy.local.state import StackState


@dataclass(frozen=True, slots=True)
class Victim:
    """A part or service.

    Attributes:
        name: its name in the command.
        process: its process's name in `stack.json`.
        variable: the variable that names an external one; None for a service.
        sees: what a visitor sees meanwhile.
        service: the service whose `/readyz`, metrics and log show the most.
        metric: the metric that changes there.
        log: the event in that service's log.
        aliases: other names for it.
    """

    name: str
    process: str
    variable: str | None
    sees: str
    service: str
    metric: str
    log: str
    aliases: tuple[str, ...] = ()


VICTIMS: Final = (
    Victim(
        name="ingest",
        process="ingest",
        variable=None,
        sees="signing gets no answer; pages and counts stay",
        service="ingest",
        metric="groundswell_ingest_accepted_total",
        log="starting",
    ),
    Victim(
        name="verify",
        process="verify",
        variable=None,
        sees="signatures are accepted, the count stands still, then makes up for it",
        service="verify",
        metric="groundswell_verify_replays_total",
        log="partitions_assigned",
    ),
    Victim(
        name="tally",
        process="tally",
        variable=None,
        sees="no page (there is one instance here); signatures are accepted",
        service="tally",
        metric="groundswell_tally_replays_dropped_total",
        log="partitions_assigned",
    ),
    Victim(
        name="notify",
        process="notify",
        variable=None,
        sees="nothing; mails come later",
        service="notify",
        metric="groundswell_notify_leases_expired_total",
        log="partitions_assigned",
    ),
    Victim(
        name="kafka",
        process="kafka",
        variable="KAFKA_BOOTSTRAP_SERVERS",
        sees="503 on signing; pages stay",
        service="ingest",
        metric='groundswell_readiness_failing{check="kafka"}',
        log="kafka_away",
    ),
    Victim(
        name="kafka-files",
        process="kafka-files",
        variable="KAFKA_BOOTSTRAP_SERVERS",
        sees="503 on signing; pages stay (this is the embedded broker's disk)",
        service="ingest",
        metric='groundswell_readiness_failing{check="kafka"}',
        log="kafka_away",
    ),
    Victim(
        name="redis",
        process="valkey",
        variable="REDIS_URL",
        sees="503 on counts while it is away; signatures are accepted",
        service="tally",
        metric="groundswell_tally_rebuilds_total",
        log="redis_state_rebuilt",
        aliases=("valkey",),
    ),
    Victim(
        name="postgres",
        process="postgres",
        variable="POSTGRES_URL",
        sees="signatures are accepted, the count stands still, then makes up for it",
        service="verify",
        metric="groundswell_consumer_held",
        log="batch_held",
        aliases=("postgresql",),
    ),
    Victim(
        name="mail",
        process="mailbox",
        variable="SMTP_URL",
        sees="nothing; mails wait",
        service="notify",
        metric="groundswell_notify_sender_held",
        log="sender_held",
        aliases=("mailbox", "smtp"),
    ),
)


def victim_of(name: str) -> Victim | None:
    """Return the victim with this name or alias, or None."""
    return next((victim for victim in VICTIMS if name in (victim.name, *victim.aliases)), None)


def what_to_watch(victim: Victim, state: StackState) -> dict[str, str]:
    """Return where to look while `victim` is away: an address or a file and what to find there, by kind."""
    service = state.services[victim.service]
    log = next((process.log for process in state.processes if process.name == victim.service), "its log")
    return {
        "visitors see": f"{victim.sees}: {state.tally_url}/p/<petition>",
        "readiness": f"{service}/readyz",
        "metric": f"{victim.metric} in {service}/metrics",
        "log": f"{victim.log} in {log}",
    }
