"""Milestones into mails: how fast notify hands deliveries to an SMTP server that takes each of them.

Every delivery is one mail: petitions with many targets, each reaching one milestone. The mail catcher writes every
mail to its file before it answers, and every answer is in PostgreSQL, on disk, before the next mail of that connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from deploy.local.parts.process import PartFailed, Process
from shared.contract.events import MilestoneReached, Organisation, PetitionChanged, Target
from shared.contract.topics import MILESTONES_REACHED, PETITIONS_CHANGED
from tests.bench.measuring.counts import WrongCount
from tests.bench.measuring.measure import MB, cpu_seconds, rss_bytes
from tests.bench.results.figures import Figure, at_most, figure
from tests.bench.scale import Scale
from tests.bench.setup import backlog
from tests.bench.setup.arena import Arena

_TARGETS = 50
"""Targets of a petition, the most it may have."""

_LOOK_SECONDS = 0.1
_SENT = "SELECT count(*) FROM deliveries WHERE state = 'sent'"


@dataclass(slots=True)
class _Rounds:
    """The results of each round, by number of instances; CPU of one mail in µs by process."""

    rate: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"notify": [], "postgres": [], "mailbox": []})
    rss: list[float] = field(default_factory=list)


async def run(arena: Arena, scale: Scale) -> list[Figure]:
    """One instance, then two."""
    petitions = scale.pick(60, quick=6)
    rounds = _Rounds()
    for _ in range(scale.repeat):
        for instances in (1, 2):
            await _round(arena, petitions, instances, rounds)
    return _figures(rounds)


async def _round(arena: Arena, petitions: int, instances: int, rounds: _Rounds) -> None:
    await arena.fresh()
    names = [f"petition-{number}" for number in range(petitions)]
    await _publish(arena, names)
    deliveries = petitions * _TARGETS
    notify = await asyncio.gather(*(arena.service("notify", NOTIFY_COALESCE_SECONDS="0") for _ in range(instances)))
    connection = await asyncpg.connect(arena.postgres.url)
    try:
        # The first tenth is not measured: connections, templates, first plans.
        first_count = await _until(connection, deliveries // 10, notify)
        began, cpu = time.monotonic(), _cpu(arena, notify)
        last_count = await _until(connection, deliveries, notify)
        seconds = time.monotonic() - began
    finally:
        await connection.close()
    measured = last_count - first_count
    rounds.rate[instances].append(measured / seconds)
    if instances == 1:
        for name, now in _cpu(arena, notify).items():
            rounds.cpu[name].append((now - cpu[name]) / measured * 1e6)
        rounds.rss.append(rss_bytes(notify[0]) / MB)
    if (caught := len(await arena.mailbox.messages())) != deliveries:
        raise WrongCount(f"{deliveries:,} deliveries are sent, and {caught:,} mails have come")


async def _publish(arena: Arena, names: Sequence[str]) -> None:
    changes = (
        backlog.event_record(_petition(name), key=name, event_id=name, source="/groundswell/ingest") for name in names
    )
    await backlog.publish(arena.bootstrap_servers, PETITIONS_CHANGED.name, changes)
    reached = [
        MilestoneReached(petition_id=name, threshold=1_000, count=1_000, revision=1_000, reached_at=datetime.now(UTC))
        for name in names
    ]
    await _decide(arena, reached)
    await backlog.publish(arena.bootstrap_servers, MILESTONES_REACHED.name, map(backlog.milestone, reached))


async def _decide(arena: Arena, reached: Sequence[MilestoneReached]) -> None:
    """The record that tally writes before it announces a milestone. notify mails no others."""
    connection = await asyncpg.connect(arena.postgres.url)
    try:
        await connection.executemany(
            "INSERT INTO milestones (petition_id, threshold, count, revision, reached_at) VALUES ($1, $2, $3, $4, $5)",
            [(one.petition_id, one.threshold, one.count, one.revision, one.reached_at) for one in reached],
        )
    finally:
        await connection.close()


def _petition(name: str) -> PetitionChanged:
    return PetitionChanged(
        petition_id=name,
        organisation=Organisation(slug="quillmere-neighbours", name="Quillmere Neighbours"),
        title=f"Keep the ferry ({name})",
        text="The ferry is the shortest way across.",
        targets=[
            Target(target_id=f"desk-{number}", name=f"Desk {number}", email=f"desk{number}@quillmere.example")
            for number in range(_TARGETS)
        ],
        milestones=[1_000],
        changed_at=datetime.now(UTC),
    )


async def _until(connection: asyncpg.Connection, sent: int, processes: Sequence[Process]) -> int:
    """Wait until so many deliveries are sent; returns their number."""
    deadline = time.monotonic() + 60 + sent / 20
    while (found := int(await connection.fetchval(_SENT))) < sent:
        for process in processes:
            if process.ended_by_itself:
                raise PartFailed(process.describe_end())
        if time.monotonic() > deadline:
            raise PartFailed(f"{found:,} of {sent:,} deliveries are sent, and no more come")
        await asyncio.sleep(_LOOK_SECONDS)
    return found


def _cpu(arena: Arena, notify: Sequence[Process]) -> dict[str, float]:
    return {
        "notify": sum(cpu_seconds(process) for process in notify),
        "postgres": cpu_seconds(arena.postgres),
        "mailbox": cpu_seconds(arena.mailbox),
    }


def _figures(rounds: _Rounds) -> list[Figure]:
    return [
        figure("notify.rate", rounds.rate[1], "deliveries/s", note="one instance, one SMTP connection"),
        figure(
            "notify.rate.two",
            rounds.rate[2],
            "deliveries/s",
            peer="one instance",
            peer_values=rounds.rate[1],
            note="two instances",
        ),
        *(figure(f"notify.cpu.{name}", values, "µs", note="per delivery") for name, values in rounds.cpu.items()),
        figure("notify.memory", rounds.rss, "MB", at_most(150, "MB")),
    ]
