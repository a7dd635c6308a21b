"""Deciding in a real PostgreSQL: the first signature stands, replays answer as before, positions have no gaps."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from deploy.local.parts.postgres import Postgres
from services.verify.deciding.outcome import LedgerRow, RefusedSignature
from services.verify.deciding.rules import Judgement, Reason
from services.verify.store import VerifyStore
from shared.contract.events import (
    ChangeCommand,
    ConfirmCommand,
    EraseCommand,
    InvalidateCommand,
    SignCommand,
    WithdrawCommand,
)
from shared.postgres import Database
from tests.integration.verify.verifying import apply, empty, lane, ledger, states, told
from tests.support.databases import database_named
from tests.support.signing import FERRY, NOON, PATH, sign


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "verify_store") as database:
        yield database


@pytest.fixture
async def store(database: Database) -> VerifyStore:
    await empty(database)
    return VerifyStore(database)


async def snapshot(database: Database) -> list[Any]:
    return [
        [tuple(row) for row in await database.pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]
        for table in ("signatures", "ledger", "erasures")
    ]


# ------------------------------------------------------------------------------------------------- who stands


async def test_of_two_signatures_of_one_signer_in_a_batch_the_first_stands(
    store: VerifyStore, database: Database
) -> None:
    decided = await apply(store, lane(sign(2, signer=1), sign(1, signer=1), sign(3)))
    assert told(decided) == [(1, "verified 2"), (2, "verified 3")]
    assert [(one.submission.event_id.int, one.outcome, one.reason) for one in decided.refused] == [
        (1, "duplicate", Reason.ALREADY_SIGNED)
    ]
    assert await states(database) == {2: "verified", 1: "duplicate", 3: "verified"}


async def test_of_two_signatures_of_one_signer_in_two_batches_the_first_stands(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1)))
    decided = await apply(store, lane(sign(2, signer=1), first=1))
    assert decided.ledger == []
    assert decided.replays == frozenset()
    assert await states(database) == {1: "verified", 2: "duplicate"}
    (row,) = await database.pool.fetch("SELECT * FROM outcomes WHERE signature_id = $1", UUID(int=2))
    assert (row["state"], row["reason"], row["petition_id"]) == ("duplicate", "already_signed", PATH)


async def test_a_signer_who_sends_a_thousand_signatures_holds_nobody_up(store: VerifyStore, database: Database) -> None:
    batch = lane(sign(1), *(sign(number, signer=2) for number in range(2, 1002)), sign(1002))
    async with asyncio.timeout(60):
        decided = await apply(store, batch)
    assert told(decided) == [(1, "verified 1"), (2, "verified 2"), (3, "verified 1002")]
    assert len(decided.refused) == 999


async def test_the_same_person_may_sign_another_petition(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1), sign(2, signer=1, petition_id=FERRY)))
    assert await states(database) == {1: "verified", 2: "pending"}


async def test_a_refused_signature_does_not_keep_its_signer_from_signing(
    store: VerifyStore, database: Database
) -> None:
    decided = await apply(store, lane(sign(1, country="ZZ"), sign(2, signer=1), sign(3, signer=1, name="...")))
    assert {one.submission.event_id.int: one.reason for one in decided.refused} == {
        1: Reason.COUNTRY_UNKNOWN,
        3: Reason.NAME_INVALID,
    }
    assert await states(database) == {1: "rejected", 2: "verified", 3: "rejected"}
    (row,) = await database.pool.fetch("SELECT * FROM outcomes WHERE signature_id = $1", UUID(int=1))
    assert row["reason"] == "country_unknown"


async def test_who_withdrew_may_sign_again_and_who_was_struck_out_may_not(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1), sign(2)))
    decided = await apply(store, lane((WithdrawCommand, 1), (InvalidateCommand, 2), first=2))
    assert told(decided) == [(3, "withdrawn 1"), (4, "invalidated 2")]
    assert [row.delta for row in decided.ledger] == [-1, -1]
    await apply(store, lane(sign(3, signer=1), sign(4, signer=2), first=4))
    assert await states(database) == {1: "withdrawn", 2: "invalidated", 3: "verified", 4: "duplicate"}


async def test_a_signer_signs_withdraws_and_signs_again_within_one_batch(
    store: VerifyStore, database: Database
) -> None:
    batch = lane(sign(1), sign(9), (WithdrawCommand, 1), sign(2, signer=1), sign(3, signer=1))
    assert told(await apply(store, batch)) == [
        (1, "verified 1"),
        (2, "verified 9"),
        (3, "withdrawn 1"),
        (4, "verified 2"),
    ]
    assert await states(database) == {1: "withdrawn", 9: "verified", 2: "verified", 3: "duplicate"}


async def test_a_pending_signature_counts_once_it_is_confirmed_and_only_once(
    store: VerifyStore, database: Database
) -> None:
    waiting = sign(1, petition_id=FERRY)
    decided = await apply(store, lane(waiting))
    assert (decided.ledger, decided.pending) == ([], 1)
    confirmed = await apply(store, lane((ConfirmCommand, 1, waiting), first=1))
    assert told(confirmed) == [(1, "verified 1")]
    (row,) = confirmed.ledger
    assert (row.signed_at, row.occurred_at) == (NOON, NOON + timedelta(minutes=5))
    again = await apply(store, lane((ConfirmCommand, 1, waiting), first=2))
    assert again.ledger == confirmed.ledger
    assert len(again.replays) == 1
    assert await ledger(database) == [(0, 1, 1, "verified", 1)]


async def test_a_pending_signature_keeps_its_signer_from_signing_twice(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1, petition_id=FERRY), sign(2, signer=1, petition_id=FERRY)))
    assert await states(database) == {1: "pending", 2: "duplicate"}


async def test_what_never_counted_is_taken_back_without_a_change_of_the_count(
    store: VerifyStore, database: Database
) -> None:
    waiting = sign(1, petition_id=FERRY)
    await apply(store, lane(waiting))
    assert (await apply(store, lane((WithdrawCommand, 1, waiting), first=1))).ledger == []
    assert (await apply(store, lane((ConfirmCommand, 1, waiting), first=2))).ledger == []
    assert await states(database) == {1: "withdrawn"}


async def test_commands_that_do_not_apply_change_nothing_and_are_counted_by_what_kept_them_from_it(
    store: VerifyStore, database: Database
) -> None:
    rejected = sign(2, country="ZZ")
    await apply(store, lane(sign(1), rejected, sign(3), (WithdrawCommand, 3), sign(4), (InvalidateCommand, 4)))
    before = await snapshot(database)
    batch = lane(
        (ConfirmCommand, 1), (WithdrawCommand, 2, rejected), (InvalidateCommand, 77), (ConfirmCommand, 3),
        (InvalidateCommand, 3), (WithdrawCommand, 4), first=6,
    )  # fmt: skip
    decided = await apply(store, batch)
    assert (decided.ledger, decided.refused) == ([], [])
    assert decided.not_applicable == {"verified": 1, "rejected": 1, "unknown": 1, "withdrawn": 2, "invalidated": 1}
    assert await snapshot(database) == before


# --------------------------------------------------------------------------------------- commands about a duplicate


@pytest.mark.parametrize(
    ("kind", "state", "told_before", "told_then"),
    [
        (ConfirmCommand, "verified", [], [(1, "verified 1")]),
        (WithdrawCommand, "withdrawn", [], []),
        (InvalidateCommand, "invalidated", [], []),
        (WithdrawCommand, "withdrawn", [(1, "verified 1")], [(2, "withdrawn 1")]),
        (InvalidateCommand, "invalidated", [(1, "verified 1")], [(2, "invalidated 1")]),
    ],
)
async def test_a_command_about_a_duplicate_is_about_the_signature_that_stands(
    store: VerifyStore, database: Database, kind: Any, state: str, told_before: Any, told_then: Any
) -> None:
    petition_id = PATH if told_before else FERRY  # where nothing is counted before it is confirmed
    duplicate = sign(2, signer=1, petition_id=petition_id)
    assert told(await apply(store, lane(sign(1, petition_id=petition_id), duplicate))) == told_before
    command = lane((kind, 2, duplicate), first=2)
    first = await apply(store, command)
    assert told(first) == told_then
    assert await states(database) == {1: state, 2: "duplicate"}
    assert first.not_applicable == {}
    before = await snapshot(database)
    again = await apply(store, command)
    assert again.ledger == first.ledger, "answered as before"
    assert await snapshot(database) == before


async def test_the_fact_of_a_command_about_a_duplicate_is_the_commands_event_about_the_signature_that_stands(
    store: VerifyStore,
) -> None:
    duplicate = sign(2, signer=1, petition_id=FERRY)
    await apply(store, lane(sign(1, petition_id=FERRY, country="BE"), duplicate))
    (command,) = lane((ConfirmCommand, 2, duplicate), first=2)
    (row,) = (await apply(store, [command])).ledger
    assert (row.event_id, row.signature_id, row.country) == (command.event_id, UUID(int=1), "BE")


@pytest.mark.parametrize("kind", [ConfirmCommand, WithdrawCommand, InvalidateCommand])
@pytest.mark.parametrize("batches", [[[0, 1]], [[0], [1]], [[1], [0]], [[0], [0, 1], [1, 0]]])
async def test_a_command_by_way_of_a_signature_and_again_by_way_of_its_duplicate_counts_once(
    store: VerifyStore, database: Database, kind: Any, batches: list[list[int]]
) -> None:
    petition_id = FERRY if kind is ConfirmCommand else PATH
    first, duplicate = sign(1, petition_id=petition_id), sign(2, signer=1, petition_id=petition_id)
    await apply(store, lane(first, duplicate))
    counted = len(await ledger(database))
    commands = lane((kind, 1, first), (kind, 2, duplicate), first=2)
    told_of = [await apply(store, [commands[place] for place in batch]) for batch in batches]
    assert len(await ledger(database)) == counted + 1
    assert len({row.event_id for decided in told_of for row in decided.ledger}) == 1
    assert sum(told_of[0].not_applicable.values()) == len(batches[0]) - 1


async def test_a_command_about_a_duplicate_that_comes_again_leaves_alone_what_its_signer_gave_since(
    store: VerifyStore, database: Database
) -> None:
    """If it were looked up again, another signature would stand now, and would be withdrawn silently."""
    duplicate = sign(2, signer=1, petition_id=FERRY)
    batch = lane(sign(1, petition_id=FERRY), duplicate, (WithdrawCommand, 2, duplicate))
    await apply(store, batch)
    await apply(store, lane(sign(3, signer=1, petition_id=FERRY), first=3))
    assert await states(database) == {1: "withdrawn", 2: "duplicate", 3: "pending"}
    before = await snapshot(database)
    again = await apply(store, batch)
    assert (again.ledger, again.not_applicable) == ([], {"withdrawn": 1})
    assert await snapshot(database) == before


@pytest.mark.parametrize("named", [1, 2, 3])
async def test_whoever_is_erased_is_erased_in_all_duplicates_and_commands_about_them_still_apply(
    store: VerifyStore, database: Database, named: int
) -> None:
    await apply(store, lane(sign(1), sign(2, signer=1), sign(3, signer=1), sign(4)))
    whose = await keys(database)
    commands = lane((EraseCommand, named, sign(named, signer=1)), first=4)
    decided = await apply(store, commands)
    assert (decided.erased, decided.ledger, decided.not_applicable) == (3, [], {})
    after = await keys(database)
    assert len({after[1], after[2], after[3], whose[1]}) == 4
    assert after[4] == whose[4]
    assert [row[0] for row in await erasures(database)] == [1, 2, 3]
    assert str(whose[1]) not in str(await snapshot(database))
    assert (await apply(store, commands)).replays == {commands[0].event_id}
    (withdrawal,) = lane((WithdrawCommand, 2, sign(2, signer=1)), first=5)
    assert told(await apply(store, [withdrawal])) == [(3, "withdrawn 1")]


async def test_an_erasure_of_each_duplicate_in_one_batch_is_one_erasure(store: VerifyStore, database: Database) -> None:
    batch = lane(sign(1), sign(2, signer=1), (EraseCommand, 2, sign(1)), (EraseCommand, 1), (EraseCommand, 2, sign(1)))
    decided = await apply(store, batch)
    assert (decided.erased, len(await erasures(database))) == (2, 2)


@pytest.mark.parametrize("kind", [ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand])
async def test_a_forged_command_about_a_duplicate_reaches_nobodys_signature(
    store: VerifyStore, database: Database, kind: Any
) -> None:
    await apply(store, lane(sign(1, petition_id=FERRY), sign(2, signer=1, petition_id=FERRY)))
    before = await snapshot(database)
    decided = await apply(store, lane((kind, 2, sign(2, signer=7, petition_id=FERRY)), first=2))
    assert [one.field for one in decided.mismatched] == ["signer_key"]
    assert await snapshot(database) == before


async def test_a_command_about_a_duplicate_of_what_is_not_known_changes_nothing(
    store: VerifyStore, database: Database
) -> None:
    """Of before `duplicate_of` was kept, or the row was deleted by hand."""
    duplicate = sign(2, signer=1)
    await apply(store, lane(sign(1), duplicate))
    await database.pool.execute("UPDATE signatures SET duplicate_of = NULL")
    decided = await apply(store, lane((WithdrawCommand, 2, duplicate), first=2))
    assert (decided.ledger, decided.not_applicable) == ([], {"duplicate": 1})
    await database.pool.execute("UPDATE signatures SET duplicate_of = $1 WHERE state = 'duplicate'", UUID(int=77))
    decided = await apply(store, lane((InvalidateCommand, 2, duplicate), first=3))
    assert (decided.ledger, decided.not_applicable) == ([], {"duplicate": 1})


async def test_a_change_given_twice_is_one_change(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1), sign(2)))
    first = await apply(store, lane((WithdrawCommand, 1), (WithdrawCommand, 1), first=2))
    again = await apply(store, lane((WithdrawCommand, 1), (InvalidateCommand, 1), first=4))
    assert told(first) == told(again) == [(3, "withdrawn 1")]
    assert await states(database) == {1: "withdrawn", 2: "verified"}


# ------------------------------------------------------------------------------------- what a command says of itself


CHANGES = [ConfirmCommand, WithdrawCommand, InvalidateCommand, EraseCommand]
OTHERS: list[tuple[str, Any]] = [
    ("signer_key", lambda waiting: sign(2, petition_id=FERRY)),
    ("petition_id", lambda waiting: sign(2)),
    ("petition_id", lambda waiting: waiting.model_copy(update={"petition_id": PATH})),
]


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize(("field", "other"), OTHERS)
async def test_a_command_of_another_signer_or_petition_changes_nothing_and_stands_in_for_no_true_one(
    store: VerifyStore, database: Database, kind: type[ChangeCommand], field: str, other: Any
) -> None:
    waiting = sign(1, petition_id=FERRY)
    await apply(store, lane(waiting))
    before = await snapshot(database)
    (forged,) = lane((kind, 1, other(waiting)), first=1)
    decided = await apply(store, [forged])
    assert [(one.submission.offset, one.field) for one in decided.mismatched] == [(1, field)]
    assert (decided.ledger, decided.replays, decided.not_applicable, decided.erased) == ([], frozenset(), {}, 0)
    assert await snapshot(database) == before
    (true,) = lane((kind, 1, waiting), first=2)
    assert forged.event_id == true.event_id
    decided = await apply(store, [forged, true])
    assert [one.submission.offset for one in decided.mismatched] == [1]
    assert told(decided) == ([(1, "verified 1")] if kind is ConfirmCommand else [])
    assert await snapshot(database) != before
    again = await apply(store, [true])
    assert (again.ledger, again.mismatched) == (decided.ledger, [])


async def test_a_true_command_takes_effect_though_forged_ones_stand_before_it_and_after_it(
    store: VerifyStore, database: Database
) -> None:
    forged = sign(1, signer=7)
    decided = await apply(
        store,
        lane(sign(1), sign(2)) + lane((WithdrawCommand, 1, forged), (WithdrawCommand, 1), first=2)
        + lane((WithdrawCommand, 1, forged), (WithdrawCommand, 1, sign(1, signer=8)), first=4),
    )  # fmt: skip
    assert told(decided) == [(1, "verified 1"), (2, "verified 2"), (3, "withdrawn 1")]
    assert [one.submission.offset for one in decided.mismatched] == [2, 5]
    assert (decided.replays, decided.not_applicable) == (frozenset(), {})
    assert await states(database) == {1: "withdrawn", 2: "verified"}


async def test_a_replay_is_one_whatever_its_signature_has_become(store: VerifyStore) -> None:
    first = await apply(store, lane(sign(1), (WithdrawCommand, 1)))
    (forged,) = lane((WithdrawCommand, 1, sign(1, signer=7)), first=2)
    again = await apply(store, [forged])
    assert (again.mismatched, again.replays, again.not_applicable) == ([], {forged.event_id}, {})
    assert again.ledger == first.ledger[1:]


# ------------------------------------------------------------------------------------------------------- erasures


async def erasures(database: Database) -> list[tuple[Any, ...]]:
    """(signature, petition, actor, reason) of everything that was erased."""
    rows = await database.pool.fetch("SELECT * FROM erasures ORDER BY signature_id")
    return [(row["signature_id"].int, row["petition_id"], row["actor"], row["reason"]) for row in rows]


async def keys(database: Database) -> dict[int, UUID]:
    """Whose each signature is."""
    rows = await database.pool.fetch("SELECT signature_id, signer_key FROM signatures")
    return {row["signature_id"].int: row["signer_key"] for row in rows}


async def test_what_is_erased_is_nobodys_and_counts_as_before(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1), sign(2)))
    before, whose = await ledger(database), await keys(database)
    decided = await apply(store, lane((EraseCommand, 1), first=2))
    assert (decided.ledger, decided.refused, decided.erased, decided.not_applicable) == ([], [], 1, {})
    assert await ledger(database) == before
    assert await states(database) == {1: "verified", 2: "verified"}
    after = await keys(database)
    assert after[1] != whose[1]
    assert after[2] == whose[2]
    (row,) = await database.pool.fetch("SELECT * FROM outcomes WHERE erased_at IS NOT NULL")
    assert (row["signature_id"], row["state"], row["petition_id"]) == (UUID(int=1), "verified", PATH)
    assert await erasures(database) == [(1, PATH, "Kim of the helpdesk", "ticket 4711")]
    everything = str(await snapshot(database))
    assert str(whose[1]) not in everything
    assert str(whose[2]) in everything


async def test_an_erasure_that_comes_again_is_a_replay_also_under_the_new_key(
    store: VerifyStore, database: Database
) -> None:
    batch = lane(sign(1), (EraseCommand, 1))
    await apply(store, batch)
    before = await snapshot(database)
    again = await apply(store, batch)
    assert again.replays == {one.event_id for one in batch}
    new_key = (await keys(database))[1]
    (later,) = lane((EraseCommand, 1), number=5)
    later_again = await apply(store, [later._replace(signer_key=new_key)])
    assert later_again.replays == {later.event_id}
    assert (again.erased, later_again.erased, again.mismatched, later_again.mismatched) == (0, 0, [], [])
    assert await snapshot(database) == before


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        ("pending", [sign(1, petition_id=FERRY)]),
        ("rejected", [sign(1, country="ZZ")]),
        ("withdrawn", [sign(1), (WithdrawCommand, 1)]),
        ("invalidated", [sign(1), (InvalidateCommand, 1)]),
        ("duplicate", [sign(9), sign(1, signer=9)]),
    ],
)
async def test_a_signature_in_any_state_is_erased_and_keeps_its_state(
    store: VerifyStore, database: Database, state: str, commands: list[Any]
) -> None:
    (about,) = [one for one in commands if isinstance(one, SignCommand) and one.signature_id.int == 1]
    await apply(store, lane(*commands))
    counted = await ledger(database)
    decided = await apply(store, lane((EraseCommand, 1, about), first=5))
    assert (decided.erased, decided.ledger) == (2 if state == "duplicate" else 1, [])
    assert (await states(database))[1] == state
    assert await ledger(database) == counted


async def test_whose_signature_was_erased_may_sign_once_more_and_counts_again(
    store: VerifyStore, database: Database
) -> None:
    """Nothing links the two: to avoid a second count, withdraw first (docs/adr/0011)."""
    batch = lane(sign(1), (EraseCommand, 1), sign(2, signer=1), sign(3, signer=1))
    decided = await apply(store, batch)
    assert told(decided) == [(1, "verified 1"), (2, "verified 2")]
    assert await states(database) == {1: "verified", 2: "verified", 3: "duplicate"}
    assert (await apply(store, batch)).ledger == decided.ledger


async def test_withdrawn_and_then_erased_counts_nothing(store: VerifyStore, database: Database) -> None:
    decided = await apply(store, lane(sign(1), (WithdrawCommand, 1), (EraseCommand, 1)))
    assert (told(decided), decided.erased) == ([(1, "verified 1"), (2, "withdrawn 1")], 1)
    assert await states(database) == {1: "withdrawn"}


async def test_the_clients_request_sent_again_after_the_erasure_is_a_replay(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1), (EraseCommand, 1)))
    before = await snapshot(database)
    again = await apply(store, lane(sign(1), first=2))
    assert (told(again), again.replays) == ([(1, "verified 1")], {UUID(int=1)})
    assert await snapshot(database) == before


async def test_commands_that_were_under_way_when_it_was_erased_and_later_ones_still_apply(
    store: VerifyStore, database: Database
) -> None:
    waiting = sign(1, petition_id=FERRY)
    await apply(store, lane(waiting, (EraseCommand, 1)))
    under_way = await apply(store, lane((ConfirmCommand, 1, waiting), first=2))
    assert told(under_way) == [(1, "verified 1")]
    (withdraw,) = lane((WithdrawCommand, 1, waiting), number=3)
    later = await apply(store, [withdraw._replace(signer_key=(await keys(database))[1])])
    assert [(row.lane, row.position, row.kind, row.country) for row in later.ledger] == [(3, 1, "withdrawn", "NL")]
    (forged,) = lane((InvalidateCommand, 1, sign(1)), first=9)
    assert [one.field for one in (await apply(store, [forged])).mismatched] == ["petition_id"]
    assert await states(database) == {1: "withdrawn"}


async def test_an_erasure_of_what_is_not_there_changes_nothing(store: VerifyStore, database: Database) -> None:
    decided = await apply(store, lane((EraseCommand, 77)))
    assert (decided.erased, decided.not_applicable) == (0, {"unknown": 1})
    assert await erasures(database) == []


# ------------------------------------------------------------------------------------------------------- retries


async def test_a_clients_retry_keeps_the_place_of_the_first(store: VerifyStore, database: Database) -> None:
    first = sign(1)
    await apply(store, lane(first, sign(2, signer=1), first))
    assert await states(database) == {1: "verified", 2: "duplicate"}


async def test_a_retry_after_a_withdrawal_does_not_undo_it(store: VerifyStore, database: Database) -> None:
    first = sign(1)
    await apply(store, lane(first, (WithdrawCommand, 1), first))
    assert await states(database) == {1: "withdrawn"}
    await apply(store, lane(first, first=3))
    assert await states(database) == {1: "withdrawn"}


async def test_a_retry_after_the_petition_closed_does_not_undo_what_came_in_time(
    store: VerifyStore, database: Database
) -> None:
    late = NOON + timedelta(hours=2)
    await apply(store, lane(sign(1), sign(1, at=late)))
    decided = await apply(store, lane(sign(1, at=late), first=2))
    assert told(decided) == [(1, "verified 1")]
    assert decided.ledger[0].occurred_at == NOON
    assert await states(database) == {1: "verified"}


async def test_a_retry_of_a_refused_signature_is_refused_as_the_first_time(store: VerifyStore) -> None:
    (first,) = (await apply(store, lane(sign(1, at=NOON + timedelta(hours=2))))).refused
    (again,) = (await apply(store, lane(sign(1, at=NOON + timedelta(hours=3)), first=1))).refused
    assert (again.outcome, again.reason, again.submitted_at) == (first.outcome, first.reason, first.submitted_at)


async def test_a_retry_in_another_lane_leaves_the_publishing_to_the_first_lane(store: VerifyStore) -> None:
    """After partitions were added, a retry comes in another lane. Its fact could overtake the one before it there."""
    await apply(store, lane(sign(1), sign(2), number=4))
    elsewhere = await apply(store, lane(sign(2), sign(3), number=5))
    assert [(row.lane, row.position) for row in elsewhere.ledger] == [(5, 1)]
    assert elsewhere.replays == {UUID(int=2)}
    both = await apply(store, [*lane(sign(2), number=5), *lane(sign(2), number=4, first=1)])
    assert [(row.lane, row.position) for row in both.ledger] == [(4, 2)]


# ------------------------------------------------------------------------------------------- replays and positions


def _offset(refused: RefusedSignature) -> int:
    return refused.submission.offset


async def test_a_batch_that_comes_again_is_answered_as_before(store: VerifyStore, database: Database) -> None:
    waiting = sign(4, petition_id=FERRY)
    batch = lane(
        sign(1), sign(2), sign(3, signer=1), sign(5, country="ZZ"), (WithdrawCommand, 2), waiting, (ConfirmCommand, 4)
    )
    first = await apply(store, batch)
    before = await snapshot(database)
    again = await apply(store, batch)
    assert again.ledger == first.ledger
    assert sorted(again.refused, key=_offset) == sorted(first.refused, key=_offset)
    assert again.replays == {one.event_id for one in batch}
    assert (again.pending, again.not_applicable) == (0, {})
    assert await snapshot(database) == before


async def test_positions_count_each_lane_for_itself_in_the_order_of_its_commands(
    store: VerifyStore, database: Database
) -> None:
    one, other = lane(sign(1), sign(2), sign(3)), lane(sign(4), sign(5), number=7)
    await apply(store, [other[0], one[0], other[1], one[1], one[2]])
    assert await ledger(database) == [
        (0, 1, 1, "verified", 1),
        (0, 2, 2, "verified", 1),
        (0, 3, 3, "verified", 1),
        (7, 1, 4, "verified", 1),
        (7, 2, 5, "verified", 1),
    ]


@pytest.mark.parametrize("seed", range(12))
async def test_however_a_lane_is_cut_and_replayed_its_decisions_are_the_same(
    store: VerifyStore, database: Database, seed: int
) -> None:
    random = Random(seed)
    commands: list[Any] = []
    for number in range(1, 25):
        signed = [one for one in commands if isinstance(one, SignCommand)]
        if signed and random.random() < 0.3:
            commands.append(
                (random.choice([WithdrawCommand, InvalidateCommand]), random.choice(signed).signature_id.int)
            )
        else:
            commands.append(sign(number, signer=random.randrange(8)))
    records = lane(*commands)
    await apply(store, records)
    whole = await ledger(database)
    await empty(database)
    done, replayed = 0, dict[tuple[int, int], LedgerRow]()
    while done < len(records):
        start = random.randint(max(0, done - 6), done)
        end = min(len(records), start + random.randint(1, 6))
        for row in (await apply(store, records[start:end])).ledger:
            assert replayed.setdefault((row.lane, row.position), row) == row, (
                "a position is the same row at every replay"
            )
        done = max(done, end)
    assert await ledger(database) == whole
    assert sorted(replayed) == [(place, position) for place, position, *_ in whole]
    offsets = {one.event_id: one.offset for one in reversed(records)}
    in_order = [offsets[replayed[key].event_id] for key in sorted(replayed)]
    assert in_order == sorted(in_order), "positions rise with offsets"


async def test_a_judgement_is_needed_for_signatures_only(store: VerifyStore) -> None:
    (one,) = lane(sign(1))
    assert told(await store.apply([(one, Judgement("verified"))])) == [(1, "verified 1")]
    assert told(await store.apply([])) == []
