"""Alerts about consumers."""

from __future__ import annotations

from typing import Final

from tests.contract.alerts.case import Case, Series, buckets


def _group(job: str, service: str, *, lag: str, committed: str) -> Series:
    """The lag of a service's group, as an instance of `job` read it from the brokers."""
    topic = {"verify": "signatures.submitted.v1", "tally": "signatures.verified.v1", "notify": "milestones.reached.v1"}[
        service
    ]
    labels = f'job="{job}",instance="{job}-a",group="groundswell-{service}",topic="{topic}"'
    return {
        f"groundswell_group_lag_records{{{labels}}}": lag,
        f"groundswell_group_committed_offset{{{labels}}}": committed,
    }


CASES: Final = (
    Case(
        "GroundswellConsumerHeld",
        at="10m",
        fires={
            'groundswell_consumer_held{job="verify",instance="a"}': "0+0x8 1+0x200",
            'groundswell_consumer_held{job="verify",instance="b"}': "0+0x208",
        },
        labels=({"job": "verify", "instance": "a"},),
        stays=(
            {'groundswell_consumer_held{job="tally",instance="a"}': "1+0x16 0+0x4 1+0x16 0+0x200"},
            {'groundswell_consumer_held{job="notify",instance="a"}': "1+0x240"},
        ),
    ),
    Case(
        "GroundswellConsumerStopped",
        at="1m",
        fires={'groundswell_consumer_stopped{job="verify",instance="a"}': "0+0x2 1+0x200"},
        labels=({"job": "verify"},),
        stays=({'groundswell_consumer_stopped{job="verify",instance="a"}': "0+0x240"},),
    ),
    Case(
        "GroundswellPartitionStuck",
        at="15m",
        fires={
            'groundswell_consumer_lag_records{job="verify",instance="a",partition="3"}': "0 0 7+0x20 7+3x200",
            'groundswell_consumer_lag_records{job="verify",instance="a",partition="4"}': "0 9 0 4 8 2+0x2 0+0x200",
        },
        labels=({"job": "verify", "partition": "3"},),
        stays=(
            # A long surge: never down to nothing, but up and down.
            {
                'groundswell_consumer_lag_records{job="verify",instance="a",partition="3"}': "900 700 "
                + "800+50x8 600+90x8 " * 14
            },
            # A backlog that is worked off, then handed to another instance.
            {
                'groundswell_consumer_lag_records{job="verify",instance="a",partition="3"}': "9000-100x40 stale",
                'groundswell_consumer_lag_records{job="verify",instance="b",partition="3"}': "_x41 5000-100x49 0+0x200",
            },
            {'groundswell_consumer_lag_records{job="verify",instance="a",partition="3"}': "5+0x30 0+0x200"},
        ),
    ),
    Case(
        "GroundswellGroupStandsStill",
        at="15m",
        fires={  # verify is down: ingest and tally are asked
            **_group("ingest", "verify", lag="0+50x240", committed="900+0x240"),
            **_group("tally", "verify", lag="0+50x240", committed="900+0x240"),
            **_group("ingest", "tally", lag="0+0x240", committed="800+0x240"),
        },
        labels=({"group": "groundswell-verify", "job": "verify"},),
        stays=(
            _group("ingest", "verify", lag="5000+70x240", committed="900+30x240"),  # overloaded, and at work
            _group("ingest", "verify", lag="0+0x240", committed="900+0x240"),  # nobody signs
            _group("ingest", "tally", lag="0+50x20 0+0x200", committed="0+0x20 1000+0x200"),  # a restart of Redis
            _group("ingest", "notify", lag="5+0x240", committed="3+0x240"),
        ),
    ),
    Case(
        "GroundswellLagGrows",
        at="25m",
        fires={
            **_group("ingest", "verify", lag="0+600x240", committed="0+100x240"),
            **_group("tally", "verify", lag="0+600x240", committed="0+100x240"),
        },
        labels=({"group": "groundswell-verify", "job": "verify"},),
        stays=(
            _group("ingest", "verify", lag="0+3000x30 90000-1500x60 0x99", committed="0+100x240"),
            _group("ingest", "verify", lag="0+20x240", committed="0+100x240"),
        ),
    ),
    Case(
        "GroundswellGroupLagUnknown",
        at="20m",
        fires={
            **_group("ingest", "verify", lag="5+0x8 stale", committed="1+0x8 stale"),
            **_group("ingest", "tally", lag="5+0x240", committed="1+0x240"),
            **_group("tally", "notify", lag="5+0x240", committed="1+0x240"),
        },
        labels=({"group": "groundswell-verify"},),
        stays=(
            {
                **_group("ingest", "verify", lag="5+0x8 stale", committed="1+0x8 stale"),
                **_group("tally", "verify", lag="5+0x240", committed="1+0x240"),
                **_group("tally", "tally", lag="5+0x240", committed="1+0x240"),
                **_group("tally", "notify", lag="5+0x240", committed="1+0x240"),
            },
        ),
    ),
    Case(
        "GroundswellCountingLate",
        at="12m",
        fires=buckets("groundswell_tally_event_age_seconds", 'job="tally"', {"30": 9, "100": 10, "+Inf": 10}),
        stays=(
            buckets("groundswell_tally_event_age_seconds", 'job="tally"', {"1": 990, "30": 1000, "+Inf": 1000}),
            buckets("groundswell_tally_event_age_seconds", 'job="tally"', {"30": 0, "+Inf": 0}),
        ),
    ),
    Case(
        "GroundswellCannotBeApplied",
        at="6m",
        fires={
            'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="cannot_be_applied"}': "0+0x20 1+0x200",
            'groundswell_consumer_dead_letters_total{job="tally",instance="a",reason="cannot_be_read"}': "0+0x20 3+0x200",
            'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="schema"}': "0+0x20 5+0x200",
        },
        labels=({"job": "verify", "reason": "cannot_be_applied"}, {"job": "tally", "reason": "cannot_be_read"}),
        stays=(
            {
                'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="cannot_be_applied"}': "0+0x240"
            },
            {'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="schema"}': "0+1x240"},
        ),
    ),
    Case(
        "GroundswellDeadLetters",
        at="6m",
        fires={'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="schema"}': "_x20 1+0x200"},
        labels=({"job": "verify", "reason": "schema"},),
        stays=(
            {'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="none"}': "0+0x240"},
            {'groundswell_consumer_records_total{job="verify",instance="a"}': "0+100x240"},
        ),
    ),
    Case(
        "GroundswellDeadLetters",
        at="20m",  # an old letter no longer fires, a new one does
        fires={
            'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="key"}': "5+0x70 6+0x100",
            'groundswell_consumer_dead_letters_total{job="verify",instance="a",reason="schema"}': "5+0x170",
        },
        labels=({"job": "verify", "reason": "key"},),
        stays=(),
    ),
    Case(
        "GroundswellBatchUnreadable",
        at="15m",
        fires={
            'groundswell_consumer_unreadable_batches_total{job="verify",instance="a"}': "0+0x20 1+0x200",
            'groundswell_catalogue_unreadable_batches_total{job="ingest",instance="a"}': "_x20 1+0x200",
            'groundswell_tally_read_unreadable_batches_total{job="tally",instance="a"}': "0+0x20 1+0x200",
        },
        labels=({"job": "verify"}, {"job": "ingest"}, {"job": "tally"}),
        stays=(
            {'groundswell_consumer_unreadable_batches_total{job="verify",instance="a"}': "0+0x240"},
            {'groundswell_catalogue_unreadable_batches_total{job="ingest",instance="a"}': "0+0x240"},
        ),
    ),
    Case(
        "GroundswellCommandsMismatched",
        at="6m",
        fires={
            'groundswell_verify_commands_mismatched_total{job="verify",instance="a",reason="signer_key"}': "0+0x10 1+0x200",
            'groundswell_verify_commands_mismatched_total{job="verify",instance="a",reason="petition_id"}': "0+0x240",
        },
        labels=({"job": "verify", "reason": "signer_key"},),
        stays=(
            {
                'groundswell_verify_commands_mismatched_total{job="verify",instance="a",reason="signer_key"}': "3+0x240",
                'groundswell_verify_changes_not_applicable_total{job="verify",instance="a",reason="verified"}': "0+1x240",
            },
        ),
    ),
    Case(
        "GroundswellBug",
        at="4m",
        fires={
            'groundswell_consumer_bugs_total{job="tally",instance="a"}': "0+0x10 1+0x200",
            'groundswell_notify_mail_bugs_total{job="notify",instance="a"}': "0+0x10 1+0x200",
            'groundswell_ingest_refused_total{job="ingest",instance="a",reason="internal_error"}': "_x10 1+0x200",
        },
        labels=({"job": "tally"}, {"job": "notify"}, {"job": "ingest"}),
        stays=(
            {
                'groundswell_consumer_bugs_total{job="tally",instance="a"}': "0+0x240",
                'groundswell_ingest_refused_total{job="ingest",instance="a",reason="invalid_fields"}': "0+1x240",
            },
        ),
    ),
    Case(
        "GroundswellTwoOwners",
        at="25m",
        fires={
            'groundswell_verify_lane_collisions_total{job="verify",instance="a"}': "0+1x240",
            'groundswell_tally_fences_moved_total{job="tally",instance="a"}': "0+1x240",
            'groundswell_consumer_commits_refused_total{job="notify",instance="a"}': "0+1x240",
        },
        labels=({"job": "verify"}, {"job": "tally"}, {"job": "notify"}),
        stays=(
            {  # one zombie
                'groundswell_verify_lane_collisions_total{job="verify",instance="a"}': "0+0x10 0+1x12 12+0x240",
                'groundswell_consumer_commits_refused_total{job="verify",instance="a"}': "0+0x10 1+0x240",
                'groundswell_tally_snapshots_overtaken_total{job="tally",instance="a"}': "0+0x10 2+0x240",
            },
        ),
    ),
    Case(
        "GroundswellStateUnreadable",
        at="15m",
        fires={
            'groundswell_catalogue_unreadable_records_total{job="verify",instance="a"}': "0+0x20 1+0x200",
            'groundswell_tally_read_snapshots_total{job="tally",instance="a",kind="unreadable"}': "_x20 1+0x200",
        },
        labels=({"job": "verify"}, {"job": "tally"}),
        stays=(
            {
                'groundswell_catalogue_unreadable_records_total{job="verify",instance="a"}': "0+0x240",
                'groundswell_tally_read_snapshots_total{job="tally",instance="a",kind="stale"}': "0+1x240",
            },
        ),
    ),
)
