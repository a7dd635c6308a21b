"""A run in which everything came as it must: tests spoil it in one place and see whether that is noticed."""

from collections import Counter
from dataclasses import replace
from typing import Any

from deploy.demo.plan.surge import Surge
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Observed, ReceivedMail
from deploy.demo.watching.topic_reader import Read

SURGE = Surge(scale=0.01)


def perfect_progress() -> Progress:
    progress = Progress(SURGE.submissions, poison=len(SURGE.poison))
    for (petition, outcome, reason), number in SURGE.expectation.outcomes.items():
        progress.answered[petition] += number
        if outcome == "refused":
            progress.refused[petition, reason] += number
        else:
            progress.accepted += number
    return progress


def perfect_observation(**changes: Any) -> Observed:
    petitions = SURGE.petitions
    observed = Observed(
        outcomes=Counter({key: number for key, number in SURGE.expectation.outcomes.items() if key[1] != "refused"}),
        tallies={petition.petition_id: petition.supporters for petition in petitions.all},
        supporters=petitions.supporters,
        petitions_started=7,
        dead_letters=[
            Read(
                "signatures.submitted.v1.dlq",
                record.key,
                record.value,
                {
                    "dlq_reason": record.reason.encode(),
                    "dlq_source_partition": b"0",
                    "dlq_source_offset": str(number).encode(),
                },
            )
            for number, record in enumerate(SURGE.poison)
        ],
        other_dead_letters=0,
        milestones=Counter(
            (petition.petition_id, threshold) for petition in petitions.open for threshold in petition.reached
        ),
        mails=[
            ReceivedMail((target.email,), petition.petition_id, petition.reached)
            for petition in petitions.open
            for target in petition.targets
        ],
        drifts=[],
    )
    return replace(observed, **changes)
