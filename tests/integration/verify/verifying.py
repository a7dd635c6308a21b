"""Helpers for the tests of verify's store: a database, lanes of commands, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from services.notify.milestones.store import Decided
from services.verify.deciding.rules import SubmittedCommand, is_sign, judge
from services.verify.store import VerifyStore
from shared.contract.events import Policy, SignCommand
from shared.postgres import Database
from tests.support.signing import FERRY, NOON, PATH, change, petition, sign, submission

CLOSED = petition(PATH, closes_at=NOON + timedelta(hours=1))
CONFIRMED = petition(FERRY, policy=Policy(confirmation="required"))


async def empty(database: Database) -> None:
    """Empty tables."""
    await database.pool.execute("DELETE FROM ledger; DELETE FROM signatures; DELETE FROM erasures")


def lane(*commands: Any, number: int = 0, first: int = 0) -> list[SubmittedCommand]:
    """Commands of a lane, in order. ``(WithdrawCommand, 1)`` is the command to withdraw signature 1; a third entry is the sign
    command that it is about, if that is not signer 1's and not earlier in this lane."""
    signed: dict[int, SignCommand] = {}
    found = []
    for offset, command in enumerate(commands, first):
        if isinstance(command, SignCommand):
            one = submission(command, offset=offset, lane=number)
            signed[command.signature_id.int] = command
        else:
            kind, signature, *of = command
            about = of[0] if of else signed.get(signature) or sign(signature)
            made = change(kind, signature, petition_id=about.petition_id, at=NOON + timedelta(minutes=5))
            one = submission(made, offset=offset, lane=number, key=submission(about).signer_key)
        found.append(one)
    return found


async def apply(store: VerifyStore, submissions: Sequence[SubmittedCommand]) -> Decided:
    """Judge a batch by the petitions above, and decide it."""
    petitions = {PATH: CLOSED, FERRY: CONFIRMED}
    judged = [(one, judge(one, petitions[one.command.petition_id]) if is_sign(one) else None) for one in submissions]
    return await store.apply(judged)


async def states(database: Database) -> dict[int, str]:
    """The state of every signature."""
    rows = await database.pool.fetch("SELECT signature_id, state FROM signatures")
    return {row["signature_id"].int: row["state"] for row in rows}


async def ledger(database: Database) -> list[tuple[int, int, int, str, int]]:
    """(lane, position, signature, kind, delta) of every row."""
    rows = await database.pool.fetch("SELECT * FROM ledger ORDER BY lane, position")
    return [(row["lane"], row["position"], row["signature_id"].int, row["kind"], row["delta"]) for row in rows]


def told(decided: Decided) -> list[tuple[int, str]]:
    """The outcomes to publish: (position, outcome of which signature)."""
    return [(row.position, f"{row.kind} {row.signature_id.int}") for row in decided.ledger]
