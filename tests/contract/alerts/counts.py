"""Alerts of counts, pages and mail."""

from __future__ import annotations

from typing import Final

from tests.contract.alerts.case import Case

CASES: Final = (
    Case(
        "GroundswellTallyDrift",
        at="2m",
        fires={
            'groundswell_tally_drift{job="tally",instance="a"}': "0+0x4 2+0x200",
            'groundswell_tally_drift{job="tally",instance="b"}': "0+0x204",
        },
        stays=({'groundswell_tally_drift{job="tally",instance="a"}': "0+0x240"},),
    ),
    Case(
        "GroundswellTallyDrift",
        at="6m",  # the sum is right, a break-down is not
        fires={
            'groundswell_tally_drift{job="tally",instance="a"}': "0+0x240",
            'groundswell_tally_audits_total{job="tally",instance="a",result="wrong"}': "0+0x20 1+0x200",
        },
        stays=({'groundswell_tally_audits_total{job="tally",instance="a",result="right"}': "0+1x240"},),
    ),
    Case(
        "GroundswellLedgerBeyondFences",
        at="20m",
        fires={
            'groundswell_tally_ledger_beyond_fences{job="tally",instance="a"}': "3+0x240",
            'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-tally",topic="t"}': "0+0x240",
            'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-verify",topic="s"}': "0+0x240",
        },
        stays=(
            {  # a surge: the audit saw it in the middle, and the next one sees nothing
                'groundswell_tally_ledger_beyond_fences{job="tally",instance="a"}': "400+0x20 0+0x200",
                'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-tally",topic="t"}': "0+0x240",
                'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-verify",topic="s"}': "0+0x240",
            },
            {  # verify is held between its commit and its publishing
                'groundswell_tally_ledger_beyond_fences{job="tally",instance="a"}': "400+0x240",
                'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-tally",topic="t"}': "0+0x240",
                'groundswell_group_lag_records{job="ingest",instance="a",group="groundswell-verify",topic="s"}': "400+0x240",
            },
        ),
    ),
    Case(
        "GroundswellAuditsNotMade",
        at="45m",
        fires={
            'groundswell_tally_audits_total{job="tally",instance="a",result="right"}': "7+0x240",
            'groundswell_tally_audits_total{job="tally",instance="a",result="wrong"}': "0+0x240",
            'groundswell_tally_audits_total{job="tally",instance="a",result="not_made"}': "0+1x240",
        },
        stays=(
            {
                'groundswell_tally_audits_total{job="tally",instance="a",result="right"}': "0+0x19 "
                + " ".join(f"{audits}+0x19" for audits in range(1, 12)),
                'groundswell_tally_audits_total{job="tally",instance="a",result="wrong"}': "0+0x240",
            },
        ),
    ),
    Case(
        "GroundswellTallyHealed",
        at="4m",
        fires={
            'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="drift"}': "0+0x8 1+0x200",
            'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="damaged"}': "0+0x208",
        },
        labels=({"found": "drift"},),
        stays=(
            {'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="command"}': "0+1x240"},
            {'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="another_redis"}': "0+0x8 7+0x200"},
        ),
    ),
    Case(
        "GroundswellSnapshotTakenBack",
        at="4m",
        fires={'groundswell_tally_snapshots_taken_back_total{job="tally",instance="a"}': "0+0x8 1+0x200"},
        stays=({'groundswell_tally_snapshots_taken_back_total{job="tally",instance="a"}': "3+0x240"},),
    ),
    Case(
        "GroundswellMilestoneUnproved",
        at="4m",
        fires={'groundswell_tally_milestones_unproved_total{job="tally",instance="a"}': "0+0x8 1+0x200"},
        stays=({'groundswell_tally_milestones_unproved_total{job="tally",instance="a"}': "3+0x240"},),
    ),
    Case(
        "GroundswellRedisLost",
        at="4m",
        fires={
            'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="another_redis"}': "0+0x8 7+0x200",
            'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="missing"}': "0+0x208",
        },
        labels=({"found": "another_redis"},),
        stays=(
            {'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="command"}': "0+1x240"},
            {'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="first_count"}': "0+0x8 7+0x200"},
        ),
    ),
    Case(
        "GroundswellRedisLostAgain",
        at="45m",
        fires={'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="missing"}': "0+1x240"},
        stays=(
            {
                'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="another_redis"}': "0+0x8 0+90x8 720+0x240"
            },
            {'groundswell_tally_rebuilds_total{job="tally",instance="a",cause="command"}': "0+1x240"},
        ),
    ),
    Case(
        "GroundswellSnapshotsFailing",
        at="12m",
        fires={'groundswell_tally_snapshots_failed_total{job="tally",instance="a"}': "0+3x240"},
        labels=({"instance": "a"},),
        stays=({'groundswell_tally_snapshots_failed_total{job="tally",instance="a"}': "0+0x9 0+4x4 16+0x240"},),
    ),
    Case(
        "GroundswellCountsUnreadable",
        at="8m",
        fires={
            'groundswell_tally_read_answers_total{job="tally",what="tally",outcome="ok"}': "0+80x240",
            'groundswell_tally_read_answers_total{job="tally",what="petition_page",outcome="away"}': "0+10x240",
            'groundswell_tally_read_answers_total{job="tally",what="petition_page",outcome="stale"}': "0+10x240",
        },
        stays=(
            {
                'groundswell_tally_read_answers_total{job="tally",what="tally",outcome="ok"}': "0+980x240",
                'groundswell_tally_read_answers_total{job="tally",what="tally",outcome="away"}': "0+20x240",
            },
            {'groundswell_tally_read_answers_total{job="tally",what="tally",outcome="away"}': "0+0x9 0+1x9 9+0x240"},
        ),
    ),
    Case(
        "GroundswellStreamsNearLimit",
        at="8m",
        fires={
            'groundswell_tally_read_stream_subscribers{job="tally",instance="a"}': "9700+0x240",
            'groundswell_tally_read_answers_total{job="tally",instance="b",what="stream",outcome="full"}': "0+1x240",
        },
        labels=({"instance": "a"}, {"instance": "b"}),
        stays=({'groundswell_tally_read_stream_subscribers{job="tally",instance="a"}': "9500+0x240"},),
    ),
    Case(
        "GroundswellMilestonesWaiting",
        at="20m",
        fires={f'groundswell_notify_milestones_waiting{{job="notify",instance="{n}"}}': "2+0x240" for n in "ab"},
        stays=({'groundswell_notify_milestones_waiting{job="notify",instance="a"}': "1+0x30 0+0x200"},),
    ),
    Case(
        "GroundswellMailOverdue",
        at="45m",
        fires={'groundswell_notify_oldest_due_seconds{job="notify",instance="a"}': "0+15x240"},
        stays=({'groundswell_notify_oldest_due_seconds{job="notify",instance="a"}': "0+15x100 0+0x140"},),
    ),
    Case(
        "GroundswellSenderHeld",
        at="20m",
        fires={f'groundswell_notify_sender_held{{job="notify",instance="{n}"}}': "1+0x240" for n in "ab"},
        stays=(
            {'groundswell_notify_sender_held{job="notify",instance="a"}': "1+0x40 0+0x4 1+0x40 0+0x140"},
            {
                'groundswell_notify_sender_held{job="notify",instance="a"}': "1+0x240",
                'groundswell_notify_sender_held{job="notify",instance="b"}': "0+0x240",
            },
        ),
    ),
    *(
        Case(
            "GroundswellForgedMilestone",
            at="15m",
            fires={one: "0+0x20 1+0x200"},
            stays=(
                {
                    one: "3+0x240",
                    'groundswell_consumer_dead_letters_total{job="notify",instance="a",reason="schema"}': "0+1x240",
                    'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="withheld"}': "0+1x240",
                },
            ),
        )
        for one in (
            'groundswell_consumer_dead_letters_total{job="notify",instance="a",reason="not_decided"}',
            'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="forged"}',
            'groundswell_notify_milestones_refused_total{job="notify",instance="a"}',
        )
    ),
    Case(
        "GroundswellMailFailed",
        at="15m",
        fires={'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="withheld"}': "0+0x20 1+0x200"},
        stays=({'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="forged"}': "0+1x240"},),
    ),
    Case(
        "GroundswellMailFailed",
        at="15m",
        fires={'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="failed"}': "0+0x20 1+0x200"},
        stays=(
            {
                'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="failed"}': "3+0x240",
                'groundswell_notify_deliveries_total{job="notify",instance="a",outcome="sent"}': "0+1x240",
            },
        ),
    ),
)
