"""Impossible states, made by hand during a surge: other petitions are counted, and the spoiled one recovers.

One test for each state that once lasted for ever. All of them, two at a time, are in tests/faults/impossible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import httpx
import pytest

from shared import redis as shared_redis
from tests.faults.impossible import acts
from tests.faults.impossible.act import Traces
from tests.faults.impossible.by_clock import CENTURIES, another_clock
from tests.faults.impossible.parts import parts_of_stack
from tests.faults.impossible.victim import NEXT_MILESTONE, Victim, goes_on, heals
from tests.faults.notes import SACRIFICE, Place, Planted
from tests.support.system import System
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("needs_apache")

SIGNATURES: Final = 1_000
PORTION: Final = 50
SECONDS: Final = 90.0
"""Seconds after which something is considered lost. An idle machine needs a few."""

_numbers = count(1)


def victim_of(system: System) -> Victim:
    """A petition to be spoiled; its signatures are counted when it is made."""
    return Victim(parts_of_stack(system.stack, system.http), f"{SACRIFICE}of-the-system-{next(_numbers)}")


async def amid_a_surge(system: System, act: Callable[[], Awaitable[None]]) -> None:
    """Let people sign a petition; in the middle of it `act`. All of them are counted."""
    petition = f"amid-a-surge-{next(_numbers)}"
    await system.start_petition(petition)

    async def surge() -> None:
        for first in range(0, SIGNATURES, PORTION):
            await system.surge(petition, range(first, first + PORTION))

    async def begun() -> bool:
        return await system.count(petition) >= PORTION

    async with asyncio.TaskGroup() as group:
        group.create_task(surge())
        await eventually(begun, "the surge is counted", SECONDS)
        await act()
    await system.counts_to(petition, SIGNATURES, SECONDS)


async def played(system: System, *names: str) -> tuple[Victim, Traces]:
    """Play acts during a surge, all on the same petition; returns when that has recovered and goes on."""
    victim, traces = victim_of(system), Traces()
    await victim.make()

    async def act() -> None:
        for name in names:
            await acts()[name].do(victim, Random(name), traces)

    await amid_a_surge(system, act)
    await is_right_again(victim)
    await letters_are_there(system, traces.planted)
    return victim, traces


async def is_right_again(victim: Victim) -> None:
    """It has the ledger's count, and goes on to its next milestone, whose mail goes to the right address."""
    assert await heals(victim, within=SECONDS) == []
    assert await goes_on(victim, within=SECONDS) == []


async def letters_are_there(system: System, planted: dict[Place, Planted]) -> None:
    """What was set aside is found among the dead letters, with its reason."""
    for (topic, partition, offset), wanted in planted.items():
        place = (str(partition).encode(), str(offset).encode())

        async def found() -> bool:
            letters = [dict(record.headers) for record in await system.records(f"{topic}.dlq")]  # noqa: B023
            reasons = [
                letter["dlq_reason"].decode()
                for letter in letters
                if (letter["dlq_source_partition"], letter["dlq_source_offset"]) == place  # noqa: B023
            ]
            return reasons == [wanted.reason]  # noqa: B023

        await eventually(
            found, f"the record at {topic} {partition} {offset} is a dead letter: {wanted.reason}", SECONDS
        )


async def test_a_signature_that_was_erased_by_hand_and_is_sent_again_holds_nobody(system: System) -> None:
    victim, _ = await played(system, "postgres-signature-deleted")
    assert (await victim.truth()).count == len(victim.signatures), "who signed before counts once, as before"


async def test_a_signature_whose_row_is_of_no_petition_is_unknown_and_no_error(system: System) -> None:
    victim = victim_of(system)
    await victim.make()
    url = f"{system.ingest}/v1/signatures/{victim.signatures[0]}"
    await system.database.execute(
        "UPDATE signatures SET petition_id = 'No such \"petition\"!' WHERE signature_id = $1", victim.signatures[0]
    )
    assert (await system.http.get(url)).status_code == httpx.codes.NOT_FOUND
    assert (await system.http.post(f"{url}/withdraw", headers=system.admin)).status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize("century", CENTURIES)
async def test_an_ingest_whose_clock_is_wrong_accepts_nothing_that_would_be_refused_later(
    system: System, tmp_path: Path, century: str
) -> None:
    victim = victim_of(system)
    await victim.make()
    place, seconds = tmp_path / "clock", CENTURIES[century]
    async with another_clock(system.stack.environment, seconds=seconds, clock=place, logs=tmp_path) as ingest:

        async def act() -> None:
            assert await ingest.accepts_nothing(victim, within=SECONDS) == []

        await amid_a_surge(system, act)
        ingest.put_right()
        assert await ingest.accepts(victim, within=SECONDS) == []
    await is_right_again(victim)


async def test_a_record_that_no_client_can_unpack_keeps_no_service_from_starting(system: System) -> None:
    victim, traces = victim_of(system), Traces()
    await victim.make()

    async def act() -> None:
        await acts()["kafka-petitions-changed-unreadable-header"].do(victim, Random(1), traces)
        await victim.parts.restart("notify")
        await victim.parts.restart("verify")

    await amid_a_surge(system, act)
    await victim.parts.restart("ingest")
    await system.start_petition(f"{victim.petition_id}-after")
    await is_right_again(victim)


async def test_a_count_that_tally_never_had_is_taken_back_by_tally(system: System) -> None:
    victim, _ = await played(system, "kafka-tallies-updated-forged")
    await victim.parts.restart("tally")
    assert await heals(victim, within=SECONDS) == [], "also for a process that reads all of the topic"


async def test_a_petition_under_another_key_changes_nothing_and_nobody_else_gets_its_mails(system: System) -> None:
    await played(system, "kafka-petitions-changed-foreign")


async def test_a_milestone_that_was_passed_while_nobody_counted_is_announced_after_a_rebuild(system: System) -> None:
    victim = victim_of(system)
    await victim.make()

    async def act() -> None:
        for process in system.stack.services["tally"]:
            await process.stop()
        # Up to the next milestone, and below it again before anybody counts.
        newcomers = range(len(victim.signatures), len(victim.signatures) + 3)
        for signer in newcomers:
            await victim.sign(signer)
        for signer in newcomers:
            await victim.withdraw(signer)

        async def decided() -> bool:
            return (await victim.truth()).changes == len(victim.signatures) + len(newcomers)

        await eventually(decided, "the ledger has all of it", SECONDS)
        redis = shared_redis.connect(system.stack.environment["REDIS_URL"])
        await redis.flushall()
        await redis.aclose()
        for process in system.stack.services["tally"]:
            await process.start()

    await amid_a_surge(system, act)

    async def told() -> bool:
        mails = await victim.parts.mails()
        return any(mail.petition_id == victim.petition_id and NEXT_MILESTONE in mail.milestones for mail in mails)

    await eventually(told, f"the milestone of {NEXT_MILESTONE} is mailed", SECONDS)
    await is_right_again(victim)


async def test_a_tally_that_was_deleted_is_whole_again_whichever_lane_the_next_signature_comes_in(
    system: System,
) -> None:
    await played(system, "redis-tally-deleted")


@pytest.mark.parametrize("name", ["count-a-word", "tally-is-a-string", "minute-a-word", "fence-a-word"])
async def test_a_value_of_a_wrong_type_costs_one_petition_a_rebuild_and_no_process(system: System, name: str) -> None:
    before = [process.pid for process in system.stack.services["tally"]]
    await played(system, f"redis-{name}")
    assert [process.pid for process in system.stack.services["tally"]] == before


@pytest.mark.parametrize("name", ["signatures-submitted-of-2099", "signatures-verified-at-the-end-of-numbers"])
async def test_one_record_from_the_far_future_spoils_nothing_that_comes_after_it(system: System, name: str) -> None:
    victim, _ = await played(system, f"kafka-{name}")
    answer = await system.http.get(f"{system.tally}/v1/petitions/{victim.petition_id}/tally")
    assert sum(answer.json()["minutes"].values()) == answer.json()["count"], "the minutes show those who signed now"
