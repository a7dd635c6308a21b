"""Deciding in a real PostgreSQL: the first signature stands, replays answer as before, positions have no gaps."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from deploy.local.postgres import Postgres
from services.verify.decide import Judgement, Reason
from services.verify.store import LedgerRow, Refused, VerifyStore
from shared.events import ConfirmCommand, InvalidateCommand, SignCommand, WithdrawCommand
from shared.postgres import Database
from tests.integration.databases import database_named
from tests.integration.verifying import apply, empty, lane, ledger, states, told
from tests.signing import FERRY, NOON, PATH, sign


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
        for table in ("signatures", "ledger")
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
    async with asyncio.timeout(10):
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


async def test_commands_that_do_not_apply_change_nothing(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1), sign(2, signer=1)))
    before = await snapshot(database)
    batch = lane((ConfirmCommand, 1), (WithdrawCommand, 2), (InvalidateCommand, 77), first=2)
    decided = await apply(store, batch)
    assert (decided.ledger, decided.refused, decided.not_applicable) == ([], [], 3)
    assert await snapshot(database) == before


async def test_a_change_given_twice_is_one_change(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1), sign(2)))
    first = await apply(store, lane((WithdrawCommand, 1), (WithdrawCommand, 1), first=2))
    again = await apply(store, lane((WithdrawCommand, 1), (InvalidateCommand, 1), first=4))
    assert told(first) == told(again) == [(3, "withdrawn 1")]
    assert await states(database) == {1: "withdrawn", 2: "verified"}


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


def _offset(refused: Refused) -> int:
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
    assert (again.pending, again.not_applicable) == (0, 0)
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
