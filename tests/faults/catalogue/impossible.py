"""Impossible states, written by hand under traffic, each about its own petition.

An act is over when its petition has recovered: it has the ledger's count and goes on to its next milestone.
"""

from __future__ import annotations

import asyncio
import time
from fnmatch import fnmatchcase
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException

from tests.faults.breaking.instances import start_again
from tests.faults.breaking.moments import MOMENT_SECONDS
from tests.faults.fault import Broken, Fault, NotPlayed
from tests.faults.impossible import observed_acts
from tests.faults.impossible.act import Act, Traces
from tests.faults.impossible.by_clock import CENTURIES, another_clock
from tests.faults.impossible.parts import parts_of_world
from tests.faults.impossible.victim import AWAY, Victim, goes_on, heals
from tests.faults.notes import SACRIFICE, notes_of

if TYPE_CHECKING:
    from tests.faults.world import World

HEAL_SECONDS: Final = 90.0
"""Seconds, on a machine under a surge and other faults. A fault may take 240 seconds in all."""

_MOST_NAME: Final = 60
_numbers = count(1)


class NotHealed(Broken):
    """The spoiled petition has not recovered. The message says what is wrong with it."""


async def spoil(world: World, random: Random, *chosen: Act) -> None:
    """Create a petition, spoil it, and wait until it has recovered.

    Raises:
        NotMade: the petition is not counted, before it was spoiled.
        NotPlayed: a part was away all the time, so that nothing could be spoiled.
        NotHealed: it has not recovered in time.
    """
    victim = Victim(parts_of_world(world), f"{SACRIFICE}{next(_numbers)}-{chosen[0].name}"[:_MOST_NAME])
    notes, traces = notes_of(world), Traces()
    await victim.make()
    try:
        for act in chosen:
            await _do(act, victim, random, traces)
    finally:
        notes.planted.update(traces.planted)
        notes.spoiled.removed |= traces.removed
        notes.spoiled.leapt |= traces.leapt
        notes.spoiled.letters[victim.petition_id] = traces.follow
        world.timeline.note(
            "spoiled",
            petition=victim.petition_id,
            acts=[act.name for act in chosen],
            removed=sorted(traces.removed),
            leapt=sorted(traces.leapt),
            planted=sorted(traces.planted),
        )
    try:
        for service in sorted({act.wakes for act in chosen if act.wakes}):
            for process in list(world.services[service]):
                await process.stop()
            await start_again(world, service)
        if wrong := await heals(victim, within=HEAL_SECONDS):
            raise NotHealed(f"{victim.petition_id} after {HEAL_SECONDS:g} s: {'; '.join(wrong)}")
        if wrong := await goes_on(victim, within=HEAL_SECONDS):
            raise NotHealed(f"{victim.petition_id} does not go on: {'; '.join(wrong)}")
    finally:
        for act in chosen:
            if act.undo is not None:
                await act.undo(victim)


async def _do(act: Act, victim: Victim, random: Random, traces: Traces) -> None:
    """Execute the act as soon as the part that it needs answers: another fault may have taken it away."""
    ends = time.monotonic() + MOMENT_SECONDS
    while True:
        try:
            await act.do(victim, random, traces)
            return
        except (KafkaError, KafkaException, *AWAY) as error:
            if time.monotonic() > ends:
                raise NotPlayed(f"a part was away for {MOMENT_SECONDS:g} s: {error!r}") from error
        await asyncio.sleep(0.5)


_GROUPS: Final = {
    "postgres-signatures": "postgres-signature-*",
    "postgres-rules": "postgres-signer-refused-by-the-table",
    "postgres-ledger": "postgres-ledger-*",
    "postgres-milestones": "postgres-milestone-*",
    "postgres-witnesses": "postgres-witness-*",
    "postgres-deliveries": "postgres-delivery-*",
    "postgres-waiting": "postgres-waiting-*",
    "redis-incarnation": "redis-incarnation-*",
    "redis-fences": "redis-fence-*",
    "redis-milestones": "redis-milestone-*",
    "redis-minutes": "redis-minute*",
    "redis-tallies": "redis-*",
    "kafka-submitted": "kafka-signatures-submitted-*",
    "kafka-verified": "kafka-signatures-verified-*",
    "kafka-rejected": "kafka-signatures-rejected-*",
    "kafka-petitions": "kafka-petitions-changed-*",
    "kafka-tallies": "kafka-tallies-updated-*",
    "kafka-milestones": "kafka-milestones-reached-*",
}
"""Groups of acts, by pattern; an act is in the first group that matches. Each kind of fault is equally frequent in a
campaign, and a hundred and forty acts would leave no room for other faults."""


def _grouped() -> dict[str, list[Act]]:
    found: dict[str, list[Act]] = {group: [] for group in _GROUPS}
    for name, act in observed_acts().items():
        found[next(group for group, pattern in _GROUPS.items() if fnmatchcase(name, pattern))].append(act)
    return found


def _touches(*chosen: Act) -> frozenset[str]:
    woken = {act.wakes for act in chosen if act.wakes}
    return frozenset({"impossible"}).union(woken, *(act.touches for act in chosen))


def _one_of(group: str, chosen: list[Act]) -> Fault:
    async def play(world: World, random: Random) -> None:
        await spoil(world, random, random.choice(chosen))

    return Fault(f"impossible-{group}", _touches(*chosen), play)


def _single(act: Act) -> Fault:
    async def play(world: World, random: Random) -> None:
        await spoil(world, random, act)

    return Fault(f"impossible-{act.name}", _touches(act), play)


async def _clock(world: World, random: Random) -> None:
    """One ingest starts with a clock of another century, which is corrected while it runs."""
    century = random.choice(sorted(CENTURIES))
    victim = Victim(parts_of_world(world), f"{SACRIFICE}{next(_numbers)}-clock-{century}")
    await victim.make()
    # A first record may be on the topic before the acknowledgement shows the right time. Its request was answered with 503.
    notes_of(world).spoiled.letters[victim.petition_id] = {"out_of_range"}
    async with another_clock(
        world.environment,
        seconds=CENTURIES[century],
        clock=world.state_dir / "data" / f"clock-of-{century}",
        logs=world.logs,
    ) as ingest:
        wrong = await ingest.accepts_nothing(victim, within=HEAL_SECONDS)
        ingest.put_right()
        wrong = wrong or await ingest.accepts(victim, within=HEAL_SECONDS)
    if wrong := wrong or await heals(victim, within=HEAL_SECONDS):
        raise NotHealed("; ".join(wrong))


async def _two(world: World, random: Random) -> None:
    """Two acts at once, on one petition."""
    await spoil(
        world, random, *random.sample([act for act in observed_acts().values() if not act.wakes and not act.touches], 2)
    )


FAULTS: Final[tuple[Fault, ...]] = (
    *(_one_of(group, chosen) for group, chosen in _grouped().items()),
    Fault("impossible-clock", frozenset({"impossible", "clock-of-one"}), _clock),
    Fault("impossible-two-at-once", frozenset({"impossible"}), _two),
)

SINGLE: Final[tuple[Fault, ...]] = tuple(_single(act) for act in observed_acts().values())
"""Every act as a separate fault: not in campaigns, but for finding the cause of a violation."""
