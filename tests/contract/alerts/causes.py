"""One cause each: the series that it gives, every alert that they fire, and the one page that is left after inhibition.

A cause begins four minutes in. It ends at 30 minutes, and what has piled up is worked off then; 38 minutes is in that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from deploy.local.parts.service import SERVICES, ServiceName
from tests.contract.alerts.case import Series, buckets

Labels = dict[str, str]
Fired = tuple[str, Labels]
"""An alert without its ``Groundswell``, and its labels but for those that its rule gives to all of its alerts."""

_BEFORE: Final = 16  # values: four minutes
_WHILE: Final = 104  # 26 minutes
_AFTER: Final = 60

NEEDED: Final[dict[ServiceName, dict[str, Literal["yes", "no"]]]] = {
    "ingest": {"kafka": "yes", "catalogue": "yes", "clock": "yes", "postgres": "no"},
    "verify": {"kafka": "yes", "catalogue": "yes", "postgres": "yes", "consumer": "yes"},
    "tally": {"catalogue": "yes", "kafka": "no", "redis": "no", "postgres": "no", "consumer": "no"},
    "notify": {"kafka": "yes", "catalogue": "yes", "postgres": "yes", "smtp": "yes", "consumer": "yes"},
}
"""The readiness checks of each service, and whether it is ready only with them."""

_TOPICS: Final = {
    "verify": "signatures.submitted.v1",
    "tally": "signatures.verified.v1",
    "notify": "milestones.reached.v1",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of alerts.

    Attributes:
        series: all samples that Prometheus sees before, during and after it.
        fires: at some moments, every alert that fires.
        page: the one page; None if there is only a ticket.
        tickets: the other notifications.
    """

    name: str
    series: Series
    fires: dict[str, tuple[Fired, ...]]
    page: str | None
    tickets: frozenset[str] = frozenset()


def _steps(before: str, during: str, after: str) -> str:
    return f"{before}x{_BEFORE - 1} {during}x{_WHILE - 1} {after}x{_AFTER - 1}"


_FLAG: Final = _steps("0+0", "1+0", "0+0")
_PILES_UP: Final = _steps("0+0", "40+40", "4000-60")
_GOES_ON: Final = f"1000+10x{_BEFORE + _WHILE + _AFTER}"
_STANDS: Final = _steps("1000+10", "1160+0", "1200+60")


def _gone(values: str) -> str:
    """A series without samples while the cause lasts."""
    step = values.partition("x")[0]
    return f"{step}x{_BEFORE - 1} stale _x{_WHILE - 1} {step}x{_AFTER - 1}"


def _readiness(service: ServiceName, check: str, values: str) -> Series:
    needed = NEEDED[service][check]
    name = f'groundswell_readiness_failing{{job="{service}",instance="{service}-a",check="{check}",needed="{needed}"}}'
    return {name: values}


def _group(asked_by: ServiceName, service: str, lag: str, committed: str) -> Series:
    labels = f'job="{asked_by}",instance="{asked_by}-a",group="groundswell-{service}",topic="{_TOPICS[service]}"'
    return {
        f"groundswell_group_lag_records{{{labels}}}": lag,
        f"groundswell_group_committed_offset{{{labels}}}": committed,
    }


def _well() -> Series:
    """The series of a healthy system with one signature a second."""
    length = _BEFORE + _WHILE + _AFTER
    series: Series = {}
    for service in SERVICES:
        series[f'up{{job="{service}",instance="{service}-a"}}'] = f"1+0x{length}"
        for check in NEEDED[service]:
            series |= _readiness(service, check, f"0+0x{length}")
    for asked_by in ("ingest", "tally"):
        for service in _TOPICS:
            series |= _group(asked_by, service, f"0+0x{length}", _GOES_ON)
    series['groundswell_ingest_accepted_total{job="ingest",instance="ingest-a",call="sign"}'] = f"0+15x{length}"
    series['groundswell_tally_audits_total{job="tally",instance="tally-a",result="right"}'] = f"0+1x{length}"
    return series


def _well_without(service: ServiceName) -> Series:
    """The same, but nothing is seen of one service while the cause lasts."""
    return {name: _gone(values) if f'job="{service}"' in name else values for name, values in _well().items()}


def _away(check: str) -> Series:
    """The check fails in every service that has it."""
    failing: Series = {}
    for service in SERVICES:
        if check in NEEDED[service]:
            failing |= _readiness(service, check, _FLAG)
    return failing


def _held(service: ServiceName) -> Series:
    """A consumer that holds a batch."""
    own = f'job="{service}",instance="{service}-a"'
    return {
        **_readiness(service, "consumer", _FLAG),
        f"groundswell_consumer_held{{{own}}}": _FLAG,
        f'groundswell_consumer_lag_records{{{own},partition="3"}}': _steps("0+0", "7+7", "700-12"),
        **_piles_up(service),
    }


def _piles_up(service: ServiceName) -> Series:
    """The brokers' lag of a group that processes nothing."""
    return {
        **_group("ingest", service, _PILES_UP, _STANDS),
        **_group("tally", service, _PILES_UP, _STANDS),
    }


def _late_after() -> Series:
    """When it goes on, counted signatures have waited long."""
    late = _steps("0+0", "0+0", "10+10")
    none = _steps("0+0", "0+0", "0+0")
    bounds = buckets(
        "groundswell_tally_event_age_seconds", 'job="tally",instance="tally-a"', {"30": 0, "100": 0, "+Inf": 0}
    )
    return {name: none if 'le="30"' in name else late for name in bounds}


def _not_ready(service: str, check: str, cause: str) -> Fired:
    return "NotReady", {"job": service, "check": check, "cause": cause}


def _instance(service: str, check: str, cause: str) -> Fired:
    return "InstanceNotReady", {"job": service, "instance": f"{service}-a", "check": check, "cause": cause}


def _consumer_held(service: str) -> Fired:
    return "ConsumerHeld", {"job": service, "instance": f"{service}-a"}


def _stuck(service: str) -> Fired:
    return "PartitionStuck", {"job": service, "partition": "3"}


def _stands_still(service: str) -> Fired:
    return "GroupStandsStill", {"group": f"groundswell-{service}", "job": service}


def _part_away(check: str) -> Fired:
    return "PartAway", {"check": check, "cause": check}


_LATE: Final[Fired] = ("CountingLate", {})

CAUSES: Final = (
    Cause(
        "Redis hangs",
        series={
            **_well(),
            **_away("redis"),
            **_held("tally"),
            **_late_after(),
            'groundswell_tally_read_answers_total{job="tally",instance="tally-a",what="tally",outcome="ok"}': _steps(
                "0+80", "1280+0", "1280+80"
            ),
            'groundswell_tally_read_answers_total{job="tally",instance="tally-a",what="tally",outcome="away"}': _steps(
                "0+0", "0+20", "2080+0"
            ),
            'groundswell_tally_snapshots_failed_total{job="tally",instance="tally-a"}': _steps("0+0", "0+3", "312+0"),
        },
        fires={
            "5m30s": (_part_away("redis"),),
            "20m": (
                _part_away("redis"),
                _consumer_held("tally"),
                _stuck("tally"),
                _stands_still("tally"),
                ("CountsUnreadable", {}),
                ("SnapshotsFailing", {"instance": "tally-a"}),
                _instance("tally", "redis", "redis"),
                _instance("tally", "consumer", "unknown"),
            ),
            "38m": (_part_away("redis"), _LATE),
        },
        page="PartAway",
    ),
    Cause(
        "PostgreSQL is away",
        series={
            **_well(),
            **_away("postgres"),
            **_held("verify"),
            **_late_after(),
            'groundswell_notify_sender_held{job="notify",instance="notify-a"}': _FLAG,
        },
        fires={
            "5m30s": (_part_away("postgres"),),
            "20m": (
                _part_away("postgres"),
                _not_ready("verify", "postgres", "postgres"),
                _not_ready("verify", "consumer", "unknown"),
                _consumer_held("verify"),
                _stuck("verify"),
                _stands_still("verify"),
                ("SenderHeld", {}),
                *(_instance(service, "postgres", "postgres") for service in SERVICES),
                _instance("verify", "consumer", "unknown"),
            ),
            "38m": (_part_away("postgres"), _LATE),
        },
        page="PartAway",
    ),
    Cause(
        "Kafka is away",
        series={
            **_well(),
            **_away("kafka"),
            **_readiness("verify", "consumer", _FLAG),
            **_readiness("tally", "consumer", _FLAG),
            'groundswell_consumer_held{job="verify",instance="verify-a"}': _FLAG,
            'groundswell_consumer_held{job="tally",instance="tally-a"}': _FLAG,
            **{
                name: _gone("0+0x1")
                for asked_by in ("ingest", "tally")
                for service in _TOPICS
                for name in _group(asked_by, service, "", "")
            },
            'groundswell_ingest_accepted_total{job="ingest",instance="ingest-a",call="sign"}': _steps(
                "0+15", "240+0", "240+15"
            ),
            'groundswell_ingest_refused_total{job="ingest",instance="ingest-a",reason="kafka_away"}': _steps(
                "0+0", "0+15", "1560+0"
            ),
        },
        fires={
            "5m30s": (_part_away("kafka"),),
            "20m": (
                _part_away("kafka"),
                _not_ready("ingest", "kafka", "kafka"),
                _not_ready("verify", "kafka", "kafka"),
                _not_ready("verify", "consumer", "unknown"),
                ("SigningRefused", {"reason": "kafka_away", "cause": "kafka"}),
                _consumer_held("verify"),
                _consumer_held("tally"),
                *(_instance(service, "kafka", "kafka") for service in SERVICES),
                _instance("verify", "consumer", "unknown"),
                _instance("tally", "consumer", "unknown"),
                *(("GroupLagUnknown", {"group": f"groundswell-{service}"}) for service in _TOPICS),
            ),
        },
        page="PartAway",
    ),
    Cause(
        "no instance of verify runs",
        series={
            **_well_without("verify"),
            'up{job="verify",instance="verify-a"}': _steps("1+0", "0+0", "1+0"),
            **_piles_up("verify"),
            **_late_after(),
        },
        fires={
            "5m30s": (("ServiceDown", {"job": "verify"}),),
            "20m": (("ServiceDown", {"job": "verify"}), _stands_still("verify")),
            "38m": (("ServiceDown", {"job": "verify"}), _LATE),
        },
        page="ServiceDown",
    ),
    Cause(
        "no instance of tally runs",
        series={
            **_well_without("tally"),
            'up{job="tally",instance="tally-a"}': _steps("1+0", "0+0", "1+0"),
            **_group("ingest", "tally", _PILES_UP, _STANDS),
        },
        fires={
            "5m30s": (("ServiceDown", {"job": "tally"}),),
            "20m": (("ServiceDown", {"job": "tally"}), _stands_still("tally")),
        },
        page="ServiceDown",
    ),
    Cause(
        "the disk of PostgreSQL is full",  # it answers, and takes nothing
        series={**_well(), **_held("verify"), **_late_after()},
        fires={
            "8m": (_not_ready("verify", "consumer", "unknown"),),
            "20m": (
                _not_ready("verify", "consumer", "unknown"),
                _consumer_held("verify"),
                _stuck("verify"),
                _stands_still("verify"),
                _instance("verify", "consumer", "unknown"),
            ),
        },
        page="NotReady",
    ),
    Cause(
        "the clock of ingest is wrong",
        series={
            **_well(),
            **_readiness("ingest", "clock", _FLAG),
            'groundswell_ingest_refused_total{job="ingest",instance="ingest-a",reason="clock_wrong"}': _steps(
                "0+0", "0+15", "1560+0"
            ),
        },
        fires={
            "20m": (
                ("ClockWrong", {"job": "ingest", "instance": "ingest-a"}),
                _not_ready("ingest", "clock", "clock"),
                ("SigningRefused", {"reason": "clock_wrong", "cause": "clock"}),
                _instance("ingest", "clock", "clock"),
            ),
        },
        page="ClockWrong",
    ),
    Cause(
        "a database constraint refuses every record",
        series={
            **_well(),
            **_readiness("verify", "consumer", _FLAG),
            **_piles_up("verify"),
            'groundswell_consumer_stopped{job="verify",instance="verify-a"}': _FLAG,
            'groundswell_consumer_dead_letters_total{job="verify",instance="verify-a",reason="cannot_be_applied"}': _steps(
                "0+0", "50+0", "50+0"
            ),
            'groundswell_consumer_lag_records{job="verify",instance="verify-a",partition="3"}': _steps(
                "0+0", "7+7", "700-12"
            ),
        },
        fires={
            "5m": (
                ("ConsumerStopped", {"job": "verify"}),
                ("CannotBeApplied", {"job": "verify", "reason": "cannot_be_applied"}),
                ("DeadLetters", {"job": "verify", "reason": "cannot_be_applied"}),
            ),
            "20m": (
                ("ConsumerStopped", {"job": "verify"}),
                _not_ready("verify", "consumer", "unknown"),
                _stuck("verify"),
                _stands_still("verify"),
                _instance("verify", "consumer", "unknown"),
            ),
        },
        page="ConsumerStopped",
    ),
    Cause(
        "the mail relay is away",
        series={
            **_well(),
            **_away("smtp"),
            'groundswell_notify_sender_held{job="notify",instance="notify-a"}': _FLAG,
        },
        fires={"20m": (("SenderHeld", {}), _instance("notify", "smtp", "smtp"))},
        page=None,
        tickets=frozenset({"SenderHeld", "InstanceNotReady"}),
    ),
)
