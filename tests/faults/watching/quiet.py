"""Waits until everything that a run has sent is finished, or says what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import asyncpg
import httpx

from deploy.demo.watching.quiet import until_nothing_is_missing
from tests.faults.sending.surge import Surge
from tests.faults.watching.observers import Observer
from tests.faults.watching.stores import Standing
from tests.faults.world import World

STUCK_SECONDS: Final = 45.0
"""After so many seconds without a change nothing more is expected. An added partition is found within 30 seconds; leases and
retries are shorter."""
MOST_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.3
SETTLE_SECONDS: Final = 2.0
"""Seconds to wait at the end for what should *not* happen: a second mail, or a count too high."""

_MOST_NAMED: Final = 5
_FINISHED: Final = ("sent", "folded", "failed")


async def wait_for_quiet(
    world: World,
    surge: Surge,
    observer: Observer,
    *,
    stuck_seconds: float = STUCK_SECONDS,
    most_seconds: float = MOST_SECONDS,
) -> list[str]:
    """Wait until everything of the run is finished.

    Returns:
        What is still missing after `stuck_seconds` without a change; empty when everything is finished.
    """

    async def look() -> list[str]:
        try:
            return await _missing(world, surge, observer)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, httpx.HTTPError, OSError) as error:
            return [f"an answer to the observer: {error!r}"]

    return await until_nothing_is_missing(
        look,
        look_seconds=_LOOK_SECONDS,
        settle_seconds=SETTLE_SECONDS,
        stuck_seconds=stuck_seconds,
        most_seconds=most_seconds,
    )


async def _missing(world: World, surge: Surge, observer: Observer) -> list[str]:
    """What is unfinished, judged by what was accepted, not by what is expected: an excess must not look like a lack."""
    undecided = [*_undecided(surge, observer), *_dead_letters(observer), *_not_withdrawn(surge, observer)]
    if undecided:  # the rest queries PostgreSQL and the API: only when it can be complete
        return undecided
    standing = await observer.postgres.standing(surge.petitions)
    facts = Counter(fact.petition_id for fact in list(observer.seen.facts.values()))
    lines = []
    for petition_id, ledger in standing.items():
        lines += await _uncounted(petition_id, ledger, facts[petition_id], observer)
    announced = {(found.petition_id, found.threshold) for found in list(observer.seen.milestones)}
    lines += [
        f"milestone {threshold:,} of {petition_id} announced"
        for petition_id, petition in surge.petitions.items()
        for threshold in petition.milestones
        if threshold <= standing[petition_id].standing and (petition_id, threshold) not in announced
    ]
    lines += await _unmailed(surge, observer, announced)
    return lines + [f"readiness of {why}" for why in await world.not_ready()]


def _undecided(surge: Surge, observer: Observer) -> list[str]:
    planted = observer.notes.planted
    # Including signatures on the topic without an answer: ingest was killed before it could answer.
    on_topic = {
        signature_id
        for signature_id, places in list(observer.seen.commands.items())
        if any(place not in planted for place in list(places))
    }
    wanted = surge.accepted.keys() | observer.notes.accepted.keys() | on_topic
    left = [signature_id for signature_id in wanted if signature_id not in observer.seen.decided]
    return _named(left, len(wanted), "outcomes of signatures on the topics")


def _dead_letters(observer: Observer) -> list[str]:
    found = {letter.source for letter in list(observer.seen.dead_letters)}
    planted = list(observer.notes.planted)
    return _named([place for place in planted if place not in found], len(planted), "dead letters")


def _not_withdrawn(surge: Surge, observer: Observer) -> list[str]:
    withdrawn = set(surge.withdrawn)
    if not withdrawn:
        return []
    found = {fact.signature_id for fact in list(observer.seen.facts.values()) if fact.delta < 0}
    return _named(list(withdrawn - found), len(withdrawn), "facts of withdrawals")


def _named(left: Sequence[object], of: int, what: str) -> list[str]:
    if not left:
        return []
    examples = ", ".join(map(str, sorted(left, key=str)[:_MOST_NAMED]))
    return [f"{what}: {len(left):,} of {of:,} are missing ({examples})"]


async def _uncounted(petition_id: str, ledger: Standing, facts: int, observer: Observer) -> list[str]:
    lines = []
    if facts < ledger.rows:
        lines.append(f"facts of {petition_id} on the topic: {facts:,} of {ledger.rows:,}")
    shown = await observer.shown(petition_id)
    if shown.revision < ledger.rows:
        lines.append(f"changes of {petition_id} in the public count: {shown.revision:,} of {ledger.rows:,}")
    snapshot = observer.seen.last_snapshot(petition_id)
    told = snapshot.revision if snapshot else 0
    if told < ledger.rows:
        lines.append(f"changes of {petition_id} in its last snapshot: {told:,} of {ledger.rows:,}")
    return lines


async def _unmailed(surge: Surge, observer: Observer, announced: set[tuple[str, int]]) -> list[str]:
    rows = {
        (row.petition_id, row.threshold, row.target_id): row
        for row in await observer.postgres.deliveries(surge.petitions)
    }
    lines = []
    for petition_id, threshold in sorted(announced):
        for target, _ in surge.petitions[petition_id].targets:
            row = rows.get((petition_id, threshold, target))
            if row is None or row.state not in _FINISHED:
                state = "not there" if row is None else row.state
                lines.append(f"mail to {target} about {threshold:,} of {petition_id}: the delivery is {state}")
    return lines
