"""Impossible states in PostgreSQL: rows deleted, edited and duplicated by hand, in every table.

The ledger is the source of truth: its content after the edit must be counted.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg

from shared.contract.events import WithdrawCommand
from shared.contract.identity import canonical_email, command_id, signer_key
from tests.faults.impossible.act import Act, Acts, Do, Traces
from tests.faults.impossible.victim import FIRST_MILESTONE, MALLORY, NEVER, Victim

_acts = Acts("postgres")

_FAR: Final = 100_000
"""Positions: more than a run has."""


async def _run(victim: Victim, query: str, *arguments: Any) -> None:
    """Write, unless the table itself refuses such a row: then there is nothing to heal."""
    async with victim.parts.database() as database:
        with suppress(asyncpg.CheckViolationError):
            await database.execute(query, *arguments)


def _some_signer(victim: Victim, random: Random) -> int:
    return random.choice(sorted(victim.signatures))


def _id(victim: Victim, signer: int) -> UUID:
    return UUID(victim.signatures[signer])


# ------------------------------------------------------------------------------------------------------------ signatures


@_acts.add("signature-deleted")
async def _signature_deleted(victim: Victim, random: Random, _: Traces) -> None:
    """Erased by hand, as a request under data protection law would have it; then the client repeats its request."""
    signer = _some_signer(victim, random)
    await _run(victim, "DELETE FROM signatures WHERE signature_id = $1", _id(victim, signer))
    await victim.sign(signer)


@_acts.add("signature-deleted-signed-anew")
async def _signature_deleted_anew(victim: Victim, random: Random, _: Traces) -> None:
    """Erased by hand; then the same person signs by a new request, which counts as nobody's before."""
    signer = _some_signer(victim, random)
    await _run(victim, "DELETE FROM signatures WHERE signature_id = $1", _id(victim, signer))
    await victim.sign(signer, key=f"{victim.key(signer)}-anew")


def _signature_set(change: str, *, then: str) -> Do:
    async def act(victim: Victim, random: Random, traces: Traces) -> None:
        """A signature was edited; then its client, its signer or a moderator comes back to it."""
        # A fact of such a row is invalid, and a command about it may find no signature.
        traces.follow |= {"schema", "out_of_range", "cannot_be_applied"}
        signer = _some_signer(victim, random)
        await _run(
            victim,
            f"UPDATE signatures SET {change} WHERE signature_id = $1",
            _id(victim, signer),
        )
        if then == "repeats":
            await victim.sign(signer)
        elif then == "withdraws":
            await victim.withdraw(signer)
        else:
            await victim.sign(signer, key=f"{victim.key(signer)}-again")

    return act


for _name, _change, _then in (
    ("pending-by-hand", "state = 'pending'", "repeats"),
    ("refused-without-a-reason", "state = 'rejected'", "repeats"),
    ("duplicate-without-a-reason", "state = 'duplicate'", "repeats"),
    ("withdrawn-by-hand", "state = 'withdrawn'", "signs again"),
    ("invalidated-by-hand", "state = 'invalidated'", "withdraws"),
    ("of-another-signer", "signer_key = gen_random_uuid()", "signs again"),
    ("of-another-petition", "petition_id = petition_id || '-elsewhere'", "withdraws"),
    ("of-no-petition", "petition_id = 'sacrifice-\"no such petition\"!'", "signs again"),
    ("of-no-country", "country = '\"'", "withdraws"),
    ("of-another-century", "submitted_at = '1815-06-18T12:00Z'", "withdraws"),
    ("of-the-future", "submitted_at = '2101-01-01T00:00Z'", "withdraws"),
):
    _acts.put(f"signature-{_name}", _signature_set(_change, then=_then))


@_acts.add("signature-foreseen")
async def _signature_foreseen(victim: Victim, random: Random, _: Traces) -> None:
    """A second row of a signer: stands beside the first as a duplicate that was never sent."""
    signer = _some_signer(victim, random)
    await _run(
        victim,
        "INSERT INTO signatures (signature_id, signer_key, petition_id, state, reason, country, submitted_at)"
        " SELECT gen_random_uuid(), signer_key, petition_id, 'duplicate', NULL, country, submitted_at"
        " FROM signatures WHERE signature_id = $1",
        _id(victim, signer),
    )
    await victim.sign(signer, key=f"{victim.key(signer)}-again")


def _rule_name(victim: Victim) -> str:
    return f'"by_hand_{victim.petition_id}"'


async def _without_rule(victim: Victim) -> None:
    await _run(victim, f"ALTER TABLE signatures DROP CONSTRAINT IF EXISTS {_rule_name(victim)}")


@_acts.add("signer-refused-by-the-table", undo=_without_rule)
async def _refused_by_the_table(victim: Victim, _: Random, traces: Traces) -> None:
    """A rule is added to the table that one signature violates: it can be read, and never applied."""
    signer = 800_000 + len(victim.signatures)
    key = signer_key(victim.parts.pepper, victim.petition_id, canonical_email(victim.email(signer)))
    await _run(
        victim,
        f"ALTER TABLE signatures ADD CONSTRAINT {_rule_name(victim)} CHECK (signer_key <> '{key}') NOT VALID",
    )
    traces.follow.add("cannot_be_applied")
    await victim.sign(signer)
    del victim.signatures[signer]  # it does not count


# ---------------------------------------------------------------------------------------------------------------- ledger

_ROWS = "SELECT lane, position FROM ledger WHERE petition_id = $1 ORDER BY position"


async def _row(database: Any, victim: Victim, random: Random) -> tuple[int, int]:
    lane, position = random.choice(await database.fetch(_ROWS, victim.petition_id))
    return lane, position


async def _own(database: Any) -> None:
    """Lock the ledger until the transaction ends, so that the notes about it are exact."""
    await database.execute("LOCK TABLE ledger IN EXCLUSIVE MODE")


@_acts.add("ledger-row-deleted")
async def _ledger_deleted(victim: Victim, random: Random, traces: Traces) -> None:
    async with victim.parts.database() as database, database.transaction():
        await _own(database)
        row = await _row(database, victim, random)
        await database.execute("DELETE FROM ledger WHERE lane = $1 AND position = $2", *row)
    traces.removed.add(row)


@_acts.add("ledger-last-row-deleted")
async def _ledger_last_deleted(victim: Victim, random: Random, traces: Traces) -> None:
    """The last row of a lane is deleted: verify gives its position to another signature."""
    await victim.sign(len(victim.signatures))
    async with victim.parts.database() as database, database.transaction():
        await _own(database)
        # Under traffic the last row is usually another petition's: then the last row of this petition is deleted.
        row = await database.fetchrow(
            "SELECT lane, position FROM ledger WHERE petition_id = $1"
            " ORDER BY position = (SELECT max(position) FROM ledger AS l WHERE l.lane = ledger.lane) DESC, position DESC"
            " LIMIT 1",
            victim.petition_id,
        )
        assert row is not None
        await database.execute("DELETE FROM ledger WHERE lane = $1 AND position = $2", row["lane"], row["position"])
    traces.removed.add((row["lane"], row["position"]))


@_acts.add("ledger-repeated-without-its-row")
async def _ledger_repeated(victim: Victim, random: Random, traces: Traces) -> None:
    """The signature stands, its ledger row is deleted, and its client repeats its request."""
    signer = _some_signer(victim, random)
    async with victim.parts.database() as database, database.transaction():
        await _own(database)
        row = await database.fetchrow(
            "DELETE FROM ledger WHERE event_id = $1 RETURNING lane, position", _id(victim, signer)
        )
    if row is not None:
        traces.removed.add((row["lane"], row["position"]))
    await victim.sign(signer)


def _ledger_set(change: str, *, signs: bool = False) -> Do:
    async def act(victim: Victim, random: Random, traces: Traces) -> None:
        """A row of the ledger was edited."""
        async with victim.parts.database() as database:
            row = await _row(database, victim, random)
            with suppress(asyncpg.CheckViolationError):  # the table itself refuses it
                await database.execute(f"UPDATE ledger SET {change} WHERE lane = $1 AND position = $2", *row)
        if signs:
            await victim.sign(len(victim.signatures))

    return act


for _name, _change in (
    ("event-edited", "event_id = gen_random_uuid()"),
    ("delta-edited", "delta = -1"),
    ("petition-edited", "petition_id = petition_id || '-elsewhere'"),
    ("petition-garbage", "petition_id = 'sacrifice-\"no such petition\"!'"),
    ("country-edited", "country = 'FR'"),
    ("country-garbage", "country = '\"'"),
    ("time-edited", "signed_at = '1815-06-18T12:00Z', occurred_at = '1815-06-18T12:00Z'"),
    ("time-in-the-future", "signed_at = '2101-01-01T00:00Z'"),
):
    _acts.put(f"ledger-{_name}", _ledger_set(_change, signs=True))


@_acts.add("ledger-event-taken")
async def _event_taken(victim: Victim, random: Random, traces: Traces) -> None:
    """The ledger has the event of a signature that its signer withdraws afterwards: the id of the withdrawal is taken."""
    traces.follow.add("cannot_be_applied")
    first, second = sorted(victim.signatures)[:2]
    taken = command_id(_id(victim, first), WithdrawCommand.TYPE)
    await _run(victim, "UPDATE ledger SET event_id = $1 WHERE event_id = $2", taken, _id(victim, second))
    await victim.withdraw(first)


@_acts.add("ledger-row-far-ahead")
async def _far_ahead(victim: Victim, random: Random, traces: Traces) -> None:
    """A row is far beyond the end of its lane; verify continues after it."""
    async with victim.parts.database() as database, database.transaction():
        await _own(database)
        lane, position = await _row(database, victim, random)
        far = await database.fetchval(
            "UPDATE ledger SET position = $3 + (SELECT max(position) FROM ledger WHERE lane = $1)"
            " WHERE lane = $1 AND position = $2 RETURNING position",
            lane,
            position,
            _FAR,
        )
    traces.removed.add((lane, position))
    traces.leapt.add((lane, far))


@_acts.add("ledger-row-duplicated-ahead")
async def _duplicated(victim: Victim, random: Random, traces: Traces) -> None:
    """A signature has a second row, at a position ahead, under another event: the ledger says that it counts twice."""
    async with victim.parts.database() as database, database.transaction():
        await _own(database)
        lane, position = await _row(database, victim, random)
        far = await database.fetchval(
            "INSERT INTO ledger SELECT lane, $3 + (SELECT max(position) FROM ledger WHERE lane = $1), $4, petition_id,"
            " signature_id, kind, delta, country, signed_at, occurred_at FROM ledger"
            " WHERE lane = $1 AND position = $2 RETURNING position",
            lane,
            position,
            _FAR,
            uuid4(),
        )
    traces.leapt.add((lane, far))


# ------------------------------------------------------------------------------------------------- milestones, witnesses

_MILESTONE = "INSERT INTO milestones (petition_id, threshold, count, revision, reached_at, announced_at) VALUES "


@_acts.add("milestone-deleted")
async def _milestone_deleted(victim: Victim, _: Random, __: Traces) -> None:
    """An announced milestone is no longer recorded, neither in PostgreSQL nor in Redis."""
    await _run(victim, "DELETE FROM milestones WHERE petition_id = $1", victim.petition_id)
    async with victim.parts.redis() as redis:
        await redis.delete(f"tally:{{{victim.petition_id}}}", f"tally:{{{victim.petition_id}}}:minutes")
    await victim.sign(len(victim.signatures))


@_acts.add("milestone-of-nothing", wakes="tally")
async def _milestone_of_nothing(victim: Victim, _: Random, __: Traces) -> None:
    """A milestone that was reached with a count of 0, to be announced."""
    await _run(
        victim,
        "UPDATE milestones SET count = 0, revision = 0, announced_at = NULL WHERE petition_id = $1",
        victim.petition_id,
    )


@_acts.add("milestone-nobody-has", wakes="tally")
async def _milestone_nobody_has(victim: Victim, _: Random, __: Traces) -> None:
    """A milestone that the petition does not have, to be announced."""
    await _run(victim, f"{_MILESTONE} ($1, 777, 777, 777, now(), NULL)", victim.petition_id)


@_acts.add("milestone-nobody-reached", wakes="tally")
async def _milestone_nobody_reached(victim: Victim, _: Random, __: Traces) -> None:
    """A milestone of the petition that it has not reached, to be announced."""
    await _run(victim, f"{_MILESTONE} ($1, $2, $2, $2, now(), NULL)", victim.petition_id, NEVER)


@_acts.add("milestone-of-the-end-of-time", wakes="tally")
async def _milestone_of_the_end(victim: Victim, _: Random, __: Traces) -> None:
    """A time that PostgreSQL has and Python has not."""
    await _run(victim, f"{_MILESTONE} ($1, $2, -1, -1, 'infinity', NULL)", victim.petition_id, NEVER)


@_acts.add("witness-edited", wakes="tally", touches=("redis",))
async def _witness_edited(victim: Victim, _: Random, __: Traces) -> None:
    await _run(victim, "UPDATE redis_witness SET identity = 'nobody/nothing'")


@_acts.add("witness-deleted", wakes="tally", touches=("redis",))
async def _witness_deleted(victim: Victim, _: Random, __: Traces) -> None:
    await _run(victim, "DELETE FROM redis_witness")


@_acts.add("witness-of-no-partition", wakes="tally")
async def _witness_of_nothing(victim: Victim, _: Random, __: Traces) -> None:
    await _run(
        victim, "INSERT INTO redis_witness VALUES (-1, ''), (2147483647, 'x') ON CONFLICT (partition) DO NOTHING"
    )


# -------------------------------------------------------------------------------------------------------------- mails


def _delivery_set(change: str) -> Do:
    async def act(victim: Victim, _: Random, __: Traces) -> None:
        """A mail that went out is to go out once more, and not as it was decided."""
        await _run(
            victim,
            f"UPDATE deliveries SET finished_at = NULL, {change} WHERE petition_id = $1 AND threshold = $2",
            victim.petition_id,
            FIRST_MILESTONE,
        )

    return act


for _name, _change in (
    ("to-another-address", f"email = '{MALLORY}', state = 'pending', chosen_at = NULL, due_at = now()"),
    ("chosen-to-another-address", f"email = '{MALLORY}', state = 'pending', due_at = now()"),
    ("to-no-address", "email = 'nobody at all', state = 'pending', due_at = now()"),
    ("of-another-target", f"email = '{MALLORY}', target_id = 'mallory', state = 'pending', due_at = now()"),
    ("of-another-milestone", f"threshold = {NEVER}, state = 'pending', due_at = now()"),
    ("of-no-milestone", "threshold = -1, state = 'pending', due_at = now()"),
    ("leased-until-2101", "state = 'sending', lease = gen_random_uuid(), leased_until = '2101-01-01T00:00Z'"),
    ("due-in-2101", "state = 'pending', due_at = '2101-01-01T00:00Z'"),
    ("folded-into-itself", "state = 'folded', folded_into = delivery_id"),
):
    _acts.put(f"delivery-{_name}", _delivery_set(_change))


@_acts.add("delivery-nobody-decided")
async def _delivery_nobody_decided(victim: Victim, _: Random, __: Traces) -> None:
    """A mail to another address about a milestone that was not reached."""
    await _run(
        victim,
        "INSERT INTO deliveries (delivery_id, petition_id, threshold, target_id, petition_title, organisation_name,"
        " target_name, target_kind, email, count, reached_at, state, due_at)"
        " VALUES ($1, $2, $3, 'mallory', 'A title', 'Somebody', 'Mallory', 'person', $4, $3, now(), 'pending', now())",
        uuid4(),
        victim.petition_id,
        NEVER,
        MALLORY,
    )


@_acts.add("waiting-milestone-nobody-reached")
async def _waiting(victim: Victim, _: Random, __: Traces) -> None:
    """A milestone that was not reached waits for a petition that is known."""
    await _run(
        victim,
        "INSERT INTO milestones_waiting (petition_id, threshold, count, revision, reached_at)"
        " VALUES ($1, $2, $2, $2, now())",
        victim.petition_id,
        NEVER,
    )


@_acts.add("waiting-milestone-out-of-bounds")
async def _waiting_out_of_bounds(victim: Victim, _: Random, __: Traces) -> None:
    """A waiting milestone that no event could be."""
    await _run(
        victim,
        "INSERT INTO milestones_waiting (petition_id, threshold, count, revision, reached_at)"
        " VALUES ($1, 0, -1, -1, 'infinity')",
        victim.petition_id,
    )


ACTS: Final[tuple[Act, ...]] = tuple(_acts.found)
