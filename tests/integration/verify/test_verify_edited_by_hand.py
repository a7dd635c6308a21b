"""Rows deleted or edited by hand: commands about them are answered or set aside, and the others are decided."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from deploy.local.parts.postgres import Postgres
from services.notify.milestones.store import Decided
from services.verify.deciding.rules import SubmittedCommand
from services.verify.store import LaneTaken, VerifyStore
from shared.contract.events import ConfirmCommand, InvalidateCommand, WithdrawCommand
from shared.postgres import Database
from shared.runtime.failures import SetAside, is_about_the_data
from tests.integration.verify.verifying import apply, empty, lane, ledger, states, told
from tests.support.databases import database_named
from tests.support.signing import FERRY, NOON, change, event_id_of, sign


@pytest.fixture(scope="module")
async def database(postgres: Postgres) -> AsyncIterator[Database]:
    async with database_named(postgres, "verify_edited") as database:
        yield database


@pytest.fixture
async def store(database: Database) -> VerifyStore:
    await empty(database)
    return VerifyStore(database)


async def by_hand(database: Database, statement: str, *arguments: Any) -> None:
    assert (await database.pool.execute(statement, *arguments)).split()[-1] != "0", "it edits something"


async def without_what_is_refused(store: VerifyStore, batch: list[SubmittedCommand]) -> tuple[Decided, dict[int, str]]:
    """Decide a batch as the consumer does: what the store names is set aside. Returns that, by signature, with reasons."""
    try:
        return await apply(store, batch), {}
    except SetAside as named:
        refused = {
            batch[i].command.signature_id.int: error.detail
            for i, error in named.refused.items()
            if error.reason == "cannot_be_applied"
        }
        rest = [one for i, one in enumerate(batch) if i not in named.refused]
        return await apply(store, rest), refused


WITHDRAWN_1 = event_id_of(change(WithdrawCommand, 1))
ERASED = "DELETE FROM signatures WHERE signature_id = $1"


# ------------------------------------------------------------------------------------------------- signatures deleted


async def test_a_counted_signature_whose_row_was_deleted_is_a_replay_when_its_command_comes_again(
    store: VerifyStore, database: Database
) -> None:
    first = await apply(store, lane(sign(1), sign(2)))
    await by_hand(database, ERASED, UUID(int=1))
    again = await apply(store, lane(sign(3), sign(1), sign(4), first=2))
    assert told(again) == [(1, "verified 1"), (3, "verified 3"), (4, "verified 4")]
    assert again.ledger[0] == first.ledger[0], "answered as before"
    assert again.replays == {UUID(int=1)}
    assert await states(database) == {2: "verified", 3: "verified", 4: "verified"}, "what was deleted stays so"
    assert [row[:3] for row in await ledger(database)] == [(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 4, 4)]


async def test_a_deleted_signature_does_not_come_back_as_a_duplicate_of_the_one_that_its_signer_gave_since(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1)))
    await by_hand(database, ERASED, UUID(int=1))
    await apply(store, lane(sign(5, signer=1), first=1))
    again = await apply(store, lane(sign(1), sign(2), first=2))
    assert told(again) == [(1, "verified 1"), (3, "verified 2")]
    assert again.refused == []
    assert await states(database) == {5: "verified", 2: "verified"}


async def test_a_deleted_signature_does_not_come_back_as_rejected_when_its_petition_has_closed(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1)))
    await by_hand(database, ERASED, UUID(int=1))
    late = NOON + timedelta(hours=2)
    again = await apply(store, lane(sign(1, at=late), sign(2, at=late), sign(3), first=1))
    assert told(again) == [(1, "verified 1"), (2, "verified 3")]
    assert [one.submission.event_id.int for one in again.refused] == [2]
    assert await states(database) == {2: "rejected", 3: "verified"}


async def test_commands_about_a_deleted_signature_change_nothing_and_hold_nobody_up(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1), sign(2)))
    await by_hand(database, ERASED, UUID(int=1))
    again = await apply(store, lane(sign(1), (WithdrawCommand, 1), (WithdrawCommand, 2), sign(3), first=2))
    assert told(again) == [(1, "verified 1"), (3, "withdrawn 2"), (4, "verified 3")]
    assert again.not_applicable == {"unknown": 1}


async def test_all_signatures_deleted_and_the_whole_lane_read_again_is_the_same_ledger(
    store: VerifyStore, database: Database
) -> None:
    waiting = sign(4, petition_id=FERRY)
    batch = lane(sign(1), sign(2), sign(3), (WithdrawCommand, 2), waiting, (ConfirmCommand, 4))
    first = await apply(store, batch)
    before = await ledger(database)
    await by_hand(database, "DELETE FROM signatures")
    again = await apply(store, batch)
    assert again.ledger == first.ledger
    assert await ledger(database) == before


# -------------------------------------------------------------------------------------------------- signatures edited


@pytest.mark.parametrize("command", [WithdrawCommand, InvalidateCommand])
async def test_a_signature_set_back_to_verified_cannot_be_taken_back_twice(
    store: VerifyStore, database: Database, command: Any
) -> None:
    first = await apply(store, lane(sign(1), sign(2), (command, 1)))
    await by_hand(database, "UPDATE signatures SET state = 'verified' WHERE signature_id = $1", UUID(int=1))
    again = await apply(store, lane((command, 1), (WithdrawCommand, 2), sign(3), first=3))
    assert told(again)[1:] == [(4, "withdrawn 2"), (5, "verified 3")]
    assert again.ledger[0] == first.ledger[2], "answered as before"
    assert await states(database) == {1: "verified", 2: "withdrawn", 3: "verified"}


async def test_a_confirmed_signature_set_back_to_pending_cannot_be_confirmed_twice(
    store: VerifyStore, database: Database
) -> None:
    waiting = sign(1, petition_id=FERRY)
    first = await apply(store, lane(waiting, (ConfirmCommand, 1)))
    await by_hand(database, "UPDATE signatures SET state = 'pending'")
    again = await apply(store, lane((ConfirmCommand, 1, waiting), sign(2), first=2))
    assert again.ledger[0] == first.ledger[0]
    assert told(again)[1:] == [(2, "verified 2")]


@pytest.mark.parametrize("edit", ["signer_key = gen_random_uuid()", f"petition_id = '{FERRY}'"])
async def test_a_signature_id_that_is_stored_for_another_signer_or_petition_is_set_aside(
    store: VerifyStore, database: Database, edit: str
) -> None:
    await apply(store, lane(sign(1, at=NOON + timedelta(hours=2))))  # refused: the ledger does not know it
    await by_hand(database, f"UPDATE signatures SET {edit}")
    decided, refused = await without_what_is_refused(store, lane(sign(2), sign(1), sign(3), sign(1), first=1))
    assert told(decided) == [(1, "verified 2"), (2, "verified 3")]
    assert refused == {1: "its signature_id is stored for another signer or petition"}


async def test_two_signatures_of_one_id_in_a_batch_are_told_apart_by_signer_and_petition(
    store: VerifyStore, database: Database
) -> None:
    batch = lane(sign(1), sign(2), sign(1, petition_id=FERRY), sign(1, signer=7), sign(1))
    with pytest.raises(SetAside) as named:
        await apply(store, batch)
    assert sorted(named.value.refused) == [2, 3]
    assert told(await apply(store, [batch[0], batch[1], batch[4]])) == [(1, "verified 1"), (2, "verified 2")]
    with pytest.raises(SetAside):
        await apply(store, [batch[2]])
    assert await states(database) == {1: "verified", 2: "verified"}


async def test_what_the_ledger_counts_is_answered_whatever_became_of_its_signature(
    store: VerifyStore, database: Database
) -> None:
    first = await apply(store, lane(sign(1)))
    await by_hand(database, "UPDATE signatures SET signer_key = gen_random_uuid(), state = 'rejected', reason = 'x'")
    again = await apply(store, lane(sign(1), sign(2), first=1))
    assert again.ledger[0] == first.ledger[0]
    assert told(again)[1:] == [(2, "verified 2")]
    assert again.refused == [], "it cannot be counted and refused"


async def test_a_refused_signature_that_lost_its_reason_is_a_replay_without_one(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1, country="ZZ")))
    await by_hand(database, "UPDATE signatures SET reason = NULL")
    again = await apply(store, lane(sign(1, country="ZZ"), sign(2), first=1))
    assert told(again) == [(1, "verified 2")]
    assert (again.refused, again.replays) == ([], {UUID(int=1)})


# ------------------------------------------------------------------------------------------------------ ledger edited


FOREIGN = """
INSERT INTO ledger (lane, position, event_id, petition_id, signature_id, kind, delta, country, signed_at, occurred_at)
VALUES ($1, $2, $3, 'another', $4, $5, $6, 'NL', now(), now())
"""


async def test_a_sign_command_whose_event_the_ledger_has_for_another_signature_is_set_aside(
    store: VerifyStore, database: Database
) -> None:
    await by_hand(database, FOREIGN, 3, 9, UUID(int=1), UUID(int=77), "verified", 1)
    decided, refused = await without_what_is_refused(store, lane(sign(2), sign(1), sign(3)))
    assert told(decided) == [(1, "verified 2"), (2, "verified 3")]
    assert refused == {1: "its event is in the ledger for something else: lane 3, position 9"}
    assert await states(database) == {2: "verified", 3: "verified"}


@pytest.mark.parametrize(
    "edit", ["petition_id = 'another'", "kind = 'withdrawn', delta = -1", "signature_id = gen_random_uuid()"]
)
async def test_a_replay_whose_row_of_the_ledger_was_edited_is_set_aside(
    store: VerifyStore, database: Database, edit: str
) -> None:
    await apply(store, lane(sign(1)))
    await by_hand(database, f"UPDATE ledger SET {edit}")
    decided, refused = await without_what_is_refused(store, lane(sign(1), sign(2), first=1))
    assert told(decided) == [(2, "verified 2")]
    assert refused == {1: "its event is in the ledger for something else: lane 0, position 1"}


async def test_a_withdrawal_whose_event_the_ledger_has_for_something_else_is_set_aside(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1), sign(2)))
    await by_hand(database, FOREIGN, 3, 9, WITHDRAWN_1, UUID(int=77), "withdrawn", -1)
    batch = lane((WithdrawCommand, 2), (WithdrawCommand, 1), sign(3), first=2)
    decided, refused = await without_what_is_refused(store, batch)
    assert told(decided) == [(3, "withdrawn 2"), (4, "verified 3")]
    assert refused == {1: "its event is in the ledger for something else: lane 3, position 9"}


async def test_a_row_that_lost_its_event_or_moved_to_another_place_holds_nobody_up(
    store: VerifyStore, database: Database
) -> None:
    await apply(store, lane(sign(1), sign(2), sign(3)))
    await by_hand(database, "UPDATE ledger SET event_id = gen_random_uuid() WHERE position = 1")
    await by_hand(database, "UPDATE ledger SET lane = 5, position = 40 WHERE position = 2")
    again = await apply(store, lane(sign(1), sign(2), sign(3), sign(4), first=3))
    assert told(again) == [(3, "verified 3"), (4, "verified 4")]


async def test_a_position_beyond_all_counting_does_not_end_its_lane(store: VerifyStore, database: Database) -> None:
    await database.pool.execute("ALTER TABLE ledger DROP CONSTRAINT ledger_position_bounds")
    try:
        await apply(store, lane(sign(1)))
        await by_hand(database, FOREIGN, 0, 2**63 - 1, UUID(int=70), UUID(int=70), "verified", 1)
        await by_hand(database, FOREIGN, 1, -5, UUID(int=71), UUID(int=71), "verified", 1)
        decided = await apply(store, [*lane(sign(2), sign(3), first=1), *lane(sign(4), number=1)])
        assert [(row.lane, row.position) for row in decided.ledger] == [(0, 2), (0, 3), (1, 1)]
    finally:
        await empty(database)
        await database.pool.execute(
            "ALTER TABLE ledger ADD CONSTRAINT ledger_position_bounds CHECK (position BETWEEN 1 AND 4503599627370496)"
        )


@pytest.mark.parametrize("position", [0, -1, 2**52 + 1, 2**63 - 1])
async def test_a_position_beyond_all_counting_cannot_be_written(
    store: VerifyStore, database: Database, position: int
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="ledger_position_bounds"):
        await by_hand(database, FOREIGN, 0, position, UUID(int=70), UUID(int=70), "verified", 1)


async def test_a_row_that_somebody_put_in_front_is_passed(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1)))
    await by_hand(database, FOREIGN, 0, 2, UUID(int=70), UUID(int=70), "verified", 1)
    assert told(await apply(store, lane(sign(2), first=1))) == [(3, "verified 2")]


# ------------------------------------------------------------------------------------------------------ schema edited


async def test_a_renamed_constraint_of_the_ledger_is_looked_at_too(store: VerifyStore, database: Database) -> None:
    await apply(store, lane(sign(1)))
    await by_hand(database, ERASED, UUID(int=1))
    await database.pool.execute("ALTER INDEX ledger_event RENAME TO ledger_event_id_key")
    try:
        assert told(await apply(store, lane(sign(1), sign(2), first=1))) == [(1, "verified 1"), (2, "verified 2")]
    finally:
        await database.pool.execute("ALTER INDEX ledger_event_id_key RENAME TO ledger_event")


TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON signatures FOR EACH ROW
WHEN (NEW.signature_id = '00000000-0000-0000-0000-000000000002') EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("what", ["RETURN NULL", "RAISE EXCEPTION 'no'", "RAISE unique_violation"])
async def test_a_row_that_a_trigger_refuses_gives_an_error_that_makes_the_consumer_find_it(
    store: VerifyStore, database: Database, what: str
) -> None:
    await database.pool.execute(TRIGGER.format(what=what))
    try:
        with pytest.raises((LaneTaken, asyncpg.PostgresError)) as failure:
            await apply(store, lane(sign(1), sign(2), sign(3)))
        assert isinstance(failure.value, LaneTaken) or is_about_the_data(failure.value)
        assert told(await apply(store, lane(sign(1), sign(3)))) == [(1, "verified 1"), (2, "verified 3")]
    finally:
        await database.pool.execute("DROP TRIGGER refuse ON signatures; DROP FUNCTION refuse")


async def test_a_row_of_the_ledger_that_a_policy_hides_is_a_collision_that_names_its_place(
    store: VerifyStore, database: Database
) -> None:
    """A superuser sees everything, so the hidden row is played by a trigger that raises what PostgreSQL would."""
    await database.pool.execute(
        """
        CREATE FUNCTION taken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE unique_violation USING TABLE = 'ledger', CONSTRAINT = 'ledger_pkey',
        DETAIL = 'Key (lane, "position")=(0, 1) already exists.'; END $$;
        CREATE TRIGGER taken BEFORE INSERT ON ledger EXECUTE FUNCTION taken();
        """
    )
    try:
        with pytest.raises(LaneTaken, match=r"constraint ledger_pkey, lane 0, position 1$"):
            await apply(store, lane(sign(1)))
    finally:
        await database.pool.execute("DROP TRIGGER taken ON ledger; DROP FUNCTION taken")


@pytest.mark.parametrize(
    ("table", "check"),
    [("signatures", "signer_key <> $1"), ("ledger", "signature_id <> '00000000-0000-0000-0000-000000000002'")],
)
async def test_a_constraint_that_somebody_added_is_about_the_data(
    store: VerifyStore, database: Database, table: str, check: str
) -> None:
    (two,) = lane(sign(2))
    check = check.replace("$1", f"'{two.signer_key}'")
    await database.pool.execute(f"ALTER TABLE {table} ADD CONSTRAINT added CHECK ({check})")
    try:
        with pytest.raises(asyncpg.CheckViolationError) as failure:
            await apply(store, lane(sign(1), sign(2)))
        assert is_about_the_data(failure.value)
    finally:
        await database.pool.execute(f"ALTER TABLE {table} DROP CONSTRAINT added")


async def test_values_that_the_database_cannot_hold_are_about_the_data(database: Database) -> None:
    for statement, argument in (
        ("SELECT $1::text", "nul \x00"),
        ("SELECT $1::text", "half a pair \ud800"),
        ("SELECT $1::bigint", 2**63),
        ("SELECT $1::int", "seven"),
        ("SELECT 9223372036854775807 + $1::bigint", 1),
        ("SELECT $1::text::int", "seven"),
        ("SELECT 1 / $1::int", 0),
    ):
        with pytest.raises(Exception) as failure:  # noqa: PT011  which of asyncpg's, is the question
            await database.pool.fetchval(statement, argument)
        assert is_about_the_data(failure.value), repr(failure.value)
