"""Waits until everything that was sent has been processed, and reports what is missing if that does not happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from deploy.demo.plan.petitions import DemoPetition, Petitions
from deploy.demo.sending.progress import Progress
from deploy.demo.watching.observed import Outcomes, ReceivedMail
from deploy.demo.watching.watch import Watch

STUCK_SECONDS: Final = 45.0
"""Without any change for this time, no more will come. A rebalance, a lease and a mail's first retry are shorter."""
MOST_SECONDS: Final = 240.0
_LOOK_SECONDS: Final = 0.5
_SETTLE_SECONDS: Final = 1.0
"""After everything has arrived: time for unwanted effects to show, such as a second mail or too high a count."""


async def wait_for_quiet(watch: Watch, petitions: Petitions, progress: Progress) -> list[str]:
    """Wait until nothing is in progress.

    Returns:
        What is still missing when nothing has moved for `STUCK_SECONDS`; empty when all came to its end.
    """
    return await until_nothing_is_missing(
        lambda: _missing(watch, petitions, progress),
        look_seconds=_LOOK_SECONDS,
        settle_seconds=_SETTLE_SECONDS,
        stuck_seconds=STUCK_SECONDS,
        most_seconds=MOST_SECONDS,
    )


async def until_nothing_is_missing(
    look: Callable[[], Awaitable[list[str]]],
    *,
    look_seconds: float,
    settle_seconds: float,
    stuck_seconds: float,
    most_seconds: float,
) -> list[str]:
    """Wait until nothing is missing, and then for unwanted effects to show.

    Args:
        look: Returns what is still missing.
        look_seconds: Seconds between two looks.
        settle_seconds: Seconds to wait after nothing is missing.
        stuck_seconds: Give up after so many seconds without a change.
        most_seconds: Give up after so many seconds in all.

    Returns:
        What was missing when it gave up; empty when nothing was.
    """
    started = last_change = time.monotonic()
    before: list[str] = []
    while missing := await look():
        now = time.monotonic()
        if missing != before:
            before, last_change = missing, now
        if now - last_change > stuck_seconds or now - started > most_seconds:
            return missing
        await asyncio.sleep(look_seconds)
    await asyncio.sleep(settle_seconds)
    return []


async def _missing(watch: Watch, petitions: Petitions, progress: Progress) -> list[str]:
    """Return what is still in progress, compared with what ingest accepted. Expected numbers are not used, so that too much
    does not look like too little."""
    outcomes, tallies = await watch.outcomes(), await watch.tallies()
    milestones, mails = watch.milestones(), await watch.mails()
    announced = {
        petition.petition_id: {threshold for (name, threshold) in milestones if name == petition.petition_id}
        for petition in petitions.all
    }
    return [
        *_undecided(progress, outcomes),
        *_behind(progress.poison, watch.dead_letters, "dead letters"),
        *(line for petition in petitions.all for line in _uncounted(petition, outcomes, tallies)),
        *(
            line
            for petition in petitions.all
            for line in _unannounced(petition, tallies, announced[petition.petition_id])
        ),
        *(line for petition in petitions.all for line in unmailed(petition, announced[petition.petition_id], mails)),
    ]


def _undecided(progress: Progress, outcomes: Outcomes) -> list[str]:
    return _behind(progress.accepted, outcomes.total(), "accepted signatures decided")


def _behind(wanted: int, got: int, what: str) -> list[str]:
    return [f"{what}: {got:,} of {wanted:,}"] if got < wanted else []


def _uncounted(petition: DemoPetition, outcomes: Outcomes, tallies: dict[str, int]) -> list[str]:
    name = petition.petition_id
    return _behind(outcomes[name, "verified", ""], tallies[name], f"verified signatures of {name} counted")


def _unannounced(petition: DemoPetition, tallies: dict[str, int], announced: set[int]) -> list[str]:
    reached = {threshold for threshold in petition.state.milestones if threshold <= tallies[petition.petition_id]}
    return [f"milestone {threshold:,} of {petition.petition_id} announced" for threshold in sorted(reached - announced)]


def unmailed(petition: DemoPetition, announced: set[int], mails: list[ReceivedMail]) -> list[str]:
    """A line for each target that got no mail about some announced milestone."""
    lines = []
    for target in petition.targets:
        named = {threshold for mail in mails if target.email in mail.to for threshold in mail.milestones}
        if left := sorted(announced - named):
            lines.append(f"mail to {target.email} about {', '.join(f'{threshold:,}' for threshold in left)}")
    return lines
