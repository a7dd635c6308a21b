"""Alerts of processes, and of the way in."""

from __future__ import annotations

from typing import Final

from tests.contract.alerts.case import Case, Series, buckets

_ALL_UP: Final = {f'up{{job="{job}",instance="a"}}': "1+0x240" for job in ("ingest", "verify", "tally", "notify")}


def _up_but(job: str, values: str | None) -> Series:
    """All services are up but one, which has these values, or which Prometheus does not know at all."""
    others = {series: ones for series, ones in _ALL_UP.items() if f'"{job}"' not in series}
    return others if values is None else {**others, f'up{{job="{job}",instance="a"}}': values}


CASES: Final = (
    Case(
        "GroundswellServiceDown",
        at="8m",
        fires=_up_but("verify", "1+0x20 0+0x200"),
        labels=({"job": "verify"},),
        stays=(
            _ALL_UP,
            _up_but("tally", "1+0x20 0+0x2 1+0x200"),  # restarted
            {**_up_but("tally", "0+0x240"), 'up{job="tally",instance="b"}': "1+0x240"},  # the other one answers
        ),
    ),
    Case(
        "GroundswellServiceDown",
        at="2m",
        fires=_up_but("notify", None),  # its name leads to no address
        labels=({"job": "notify"},),
        stays=(),
    ),
    Case(
        "GroundswellInstancesMissing",
        at="25m",
        fires={**_ALL_UP, 'up{job="verify",instance="b"}': "1+0x20 0+0x200"},
        labels=({"job": "verify"},),
        stays=(
            {**_ALL_UP, 'up{job="verify",instance="b"}': "1+0x20 0+0x20 1+0x200"},  # deployed within five minutes
            {**_ALL_UP, **{f'up{{job="verify",instance="{n}"}}': f"1+0x{20 if n == 2 else 240}" for n in range(3)}},
        ),
    ),
    Case(
        "GroundswellCrashLoop",
        at="15m",
        fires={'process_start_time_seconds{job="tally",instance="a"}': "100+0x9 200+0x9 300+0x9 400+0x40"},
        labels=({"job": "tally", "instance": "a"},),
        stays=(
            {'process_start_time_seconds{job="tally",instance="a"}': "100+0x20 200+0x240"},  # deployed
            {f'process_start_time_seconds{{job="tally",instance="{n}"}}': "100+0x20 200+0x240" for n in range(4)},
            {'process_start_time_seconds{job="prometheus",instance="a"}': "100+0x9 200+0x9 300+0x9 400+0x240"},
        ),
    ),
    Case(
        "GroundswellPartAway",
        at="6m",
        fires={
            'groundswell_readiness_failing{job="ingest",instance="a",check="postgres",needed="no"}': "0+0x12 1+0x200",
            'groundswell_readiness_failing{job="verify",instance="a",check="postgres",needed="yes"}': "0+0x12 1+0x200",
            'groundswell_readiness_failing{job="verify",instance="b",check="postgres",needed="yes"}': "0+0x12 1+0x200",
            'groundswell_readiness_failing{job="tally",instance="a",check="redis",needed="no"}': "0+0x240",
        },
        labels=({"check": "postgres", "cause": "postgres"},),
        stays=(
            {  # one service does not reach it, the others do: that is not the part
                'groundswell_readiness_failing{job="verify",instance="a",check="postgres",needed="yes"}': "1+0x240",
                'groundswell_readiness_failing{job="tally",instance="a",check="postgres",needed="no"}': "0+0x240",
            },
            {'groundswell_readiness_failing{job="tally",instance="a",check="redis",needed="no"}': "1+0x3 0+0x240"},
            {'groundswell_readiness_failing{job="notify",instance="a",check="smtp",needed="yes"}': "1+0x240"},
            {'groundswell_readiness_failing{job="verify",instance="a",check="consumer",needed="yes"}': "1+0x240"},
        ),
    ),
    Case(
        "GroundswellPartAway",
        at="15m",  # it is back since two minutes, and what has piled up is worked off
        fires={'groundswell_readiness_failing{job="tally",instance="a",check="redis",needed="no"}': "1+0x52 0+0x200"},
        labels=({"check": "redis", "cause": "redis"},),
        stays=(),
    ),
    Case(
        "GroundswellNotReady",
        at="8m",  # its own work, and no part that a check names
        fires={'groundswell_readiness_failing{job="verify",instance="a",check="consumer",needed="yes"}': "1+0x200"},
        labels=({"job": "verify", "check": "consumer", "cause": "unknown"},),
        stays=(),
    ),
    Case(
        "GroundswellNotReady",
        at="8m",
        fires={
            'groundswell_readiness_failing{job="ingest",instance="a",check="kafka",needed="yes"}': "0+0x12 1+0x200",
            'groundswell_readiness_failing{job="ingest",instance="b",check="kafka",needed="yes"}': "0+0x12 1+0x200",
            'groundswell_readiness_failing{job="ingest",instance="a",check="catalogue",needed="yes"}': "0+0x200",
        },
        labels=({"job": "ingest", "check": "kafka", "cause": "kafka"},),
        stays=(
            {'groundswell_readiness_failing{job="ingest",instance="a",check="kafka",needed="yes"}': "1+0x6 0+0x240"},
            {'groundswell_readiness_failing{job="ingest",instance="a",check="postgres",needed="no"}': "1+0x240"},
            {'groundswell_readiness_failing{job="notify",instance="a",check="smtp",needed="yes"}': "1+0x240"},
            {
                'groundswell_readiness_failing{job="verify",instance="a",check="kafka",needed="yes"}': "1+0x240",
                'groundswell_readiness_failing{job="verify",instance="b",check="kafka",needed="yes"}': "0+0x240",
            },
        ),
    ),
    Case(
        "GroundswellInstanceNotReady",
        at="20m",
        fires={'groundswell_readiness_failing{job="ingest",instance="a",check="postgres",needed="no"}': "1+0x240"},
        labels=({"job": "ingest", "instance": "a", "check": "postgres", "cause": "postgres"},),
        stays=(
            {'groundswell_readiness_failing{job="notify",instance="a",check="smtp",needed="yes"}': "1+0x40 0+0x240"},
        ),
    ),
    Case(
        "GroundswellSigningRefused",
        at="8m",
        fires={
            'groundswell_ingest_accepted_total{job="ingest",call="sign"}': "0+90x240",
            'groundswell_ingest_refused_total{job="ingest",reason="kafka_away"}': "0+10x240",
        },
        labels=({"reason": "kafka_away", "cause": "kafka"},),
        stays=(
            {
                'groundswell_ingest_accepted_total{job="ingest",call="sign"}': "0+900x240",
                'groundswell_ingest_refused_total{job="ingest",reason="overloaded"}': "0+10x240",
                'groundswell_ingest_refused_total{job="ingest",reason="petition_closed"}': "0+900x240",
            },
            {  # one client that meets a restart in the middle of the night
                'groundswell_ingest_accepted_total{job="ingest",call="sign"}': "0+0x240",
                'groundswell_ingest_refused_total{job="ingest",reason="starting"}': "0+0x12 0+1x10 10+0x200",
            },
        ),
    ),
    Case(
        "GroundswellClockWrong",
        at="8m",
        fires={
            'groundswell_readiness_failing{job="ingest",instance="a",check="clock",needed="yes"}': "0+0x12 1+0x240",
            'groundswell_readiness_failing{job="ingest",instance="b",check="clock",needed="yes"}': "0+0x240",
        },
        labels=({"job": "ingest", "instance": "a"},),
        stays=(
            {'groundswell_readiness_failing{job="ingest",instance="a",check="clock",needed="yes"}': "1+0x2 0+0x240"},
            {'groundswell_readiness_failing{job="ingest",instance="a",check="clock",needed="yes"}': "0+0x20 1 0+0x220"},
            {'groundswell_readiness_failing{job="ingest",instance="a",check="kafka",needed="yes"}': "1+0x240"},
        ),
    ),
    Case(
        "GroundswellClockWrong",
        at="8m",
        fires={
            'groundswell_readiness_failing{job="ingest",instance="a",check="clock",needed="yes"}': " ".join(
                ["0+0x12", *(["1+0x3", "0"] * 40)]  # accepts once a minute, and finds out again
            )
        },
        labels=({"job": "ingest", "instance": "a"},),
        stays=(),
    ),
    Case(
        "GroundswellSigningSlow",
        at="15m",
        fires=buckets("groundswell_ingest_acknowledged_seconds", 'job="ingest"', {"2": 95, "5": 100, "+Inf": 100}),
        stays=(
            buckets("groundswell_ingest_acknowledged_seconds", 'job="ingest"', {"2": 998, "5": 1000, "+Inf": 1000}),
            buckets("groundswell_ingest_acknowledged_seconds", 'job="ingest"', {"2": 0, "5": 0, "+Inf": 0}),
        ),
    ),
    Case(
        "GroundswellCredentialsGuessed",
        at="20m",
        fires={
            'groundswell_ingest_refused_total{job="ingest",instance="a",reason="credentials_wrong"}': "0+2x240",
            'groundswell_ingest_refused_total{job="ingest",instance="a",reason="too_many_wrong_credentials"}': "0+4x240",
            'groundswell_ingest_refused_total{job="ingest",instance="b",reason="too_many_wrong_credentials"}': "0+4x240",
        },
        stays=(
            {  # one network within its rate, and what has nothing to do with it
                'groundswell_ingest_refused_total{job="ingest",reason="credentials_wrong"}': "0+3x240",
                'groundswell_ingest_refused_total{job="ingest",reason="too_many_requests"}': "0+900x240",
                'groundswell_ingest_refused_total{job="ingest",reason="credentials_required"}': "0+900x240",
            },
            {  # it came to nothing
                'groundswell_ingest_refused_total{job="ingest",reason="too_many_wrong_credentials"}': "0+20x8 160+0x240",
            },
        ),
    ),
    Case(
        "GroundswellConnectionsCrowded",
        at="20m",
        fires={'groundswell_http_connections_cut_total{job="ingest",instance="a",cause="crowded"}': "0+5x240"},
        labels=({"job": "ingest"},),
        stays=(
            {'groundswell_http_connections_cut_total{job="ingest",instance="a",cause="crowded"}': "0+1x240"},
            {'groundswell_http_connections_cut_total{job="ingest",instance="a",cause="head"}': "0+50x240"},
        ),
    ),
)
