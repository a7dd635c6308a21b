"""Milestones that tally did not decide are not mailed, and impossible rows do not block others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate, migrations
from services.notify.deliveries import NO_MAIL, NO_TARGET, NOT_DECIDED, NOT_ITS_ID, Claim, delivery_id
from services.notify.mail.letter import MailWriter
from services.notify.milestones.handlers import MilestoneHandler
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from shared.runtime.failures import SetAside
from tests.integration.notify.notify_desk import Desk, milestone, petition
from tests.support.waiting import eventually

MANUAL = """
    INSERT INTO deliveries (delivery_id, petition_id, threshold, target_id, petition_title, organisation_name, target_name,
                            target_kind, email, count, reached_at, due_at)
    VALUES ($1, $2, $3, $4, 'Keep the night ferry', 'Friends', 'Office', 'body', 'somebody@else.example', 7, now(), now())
"""
"""A delivery written by hand."""


class ReadFeed:
    """A catalogue that has been read to its end."""

    async def catch_up(self) -> None:
        """It is up to date."""

    async def check(self) -> str | None:
        """It is complete."""
        return None


def handler(desk: Desk, catalogue: Catalogue | None = None) -> MilestoneHandler:
    """A handler at this desk."""
    return MilestoneHandler(
        catalogue=desk.catalogue if catalogue is None else catalogue,
        feed=cast("CatalogueFeed", ReadFeed()),
        store=desk.milestones,
        metrics=desk.metrics,
        coalesce_seconds=0,
    )


async def write_by_hand(
    desk: Desk, threshold: int, petition_id: str = "night-ferry", target_id: str = "office-0", id_: UUID | None = None
) -> None:
    """Somebody writes a delivery into the table."""
    if id_ is None:
        id_ = delivery_id(petition_id, threshold, target_id)
    await desk.eyes.execute(MANUAL, id_, petition_id, threshold, target_id)


async def words(desk: Desk) -> dict[tuple[int, str], str | None]:
    """The last words about each delivery, by threshold and target."""
    return {(row["threshold"], row["target_id"]): row["last_reply"] for row in await desk.rows()}


# ------------------------------------------------------------------------------------------------- records on the topic


async def test_a_milestone_that_tally_never_decided_is_set_aside_and_mails_nobody(desk: Desk) -> None:
    desk.catalogue.apply(petition())
    forged, genuine = milestone(999), milestone(1000)
    await desk.decide(genuine)

    with pytest.raises(SetAside) as aside:
        await handler(desk).process([forged, genuine])
    assert {index: error.reason for index, error in aside.value.refused.items()} == {0: "not_decided"}
    assert await desk.rows() == [], "nothing is written before the others come again"

    await handler(desk).process([genuine])
    async with desk.sending():
        await desk.finished()
    assert [mail.milestones for mail in desk.smtp.taken] == ["1000"]


@pytest.mark.parametrize("changes", [{"count": 5000}, {"revision": 5000}, {"reached_at": milestone(1000).reached_at}])
async def test_a_milestone_with_other_numbers_than_tally_recorded_is_set_aside(
    desk: Desk, changes: dict[str, object]
) -> None:
    desk.catalogue.apply(petition())
    genuine = milestone(1000)
    await desk.decide(genuine)
    with pytest.raises(SetAside) as aside:
        await handler(desk).process([genuine, genuine.model_copy(update=changes)])
    assert list(aside.value.refused) == [1]


async def test_a_milestone_recorded_with_numbers_that_cannot_be_is_not_decided(desk: Desk) -> None:
    desk.catalogue.apply(petition())
    # The table no longer takes such rows. It may hold older ones.
    await desk.eyes.execute("ALTER TABLE milestones DROP CONSTRAINT milestones_can_be")
    for threshold, time in ((1, "infinity"), (2, "-infinity"), (3, "20000-01-01"), (4, "4000-01-01 BC")):
        await desk.eyes.execute(
            "INSERT INTO milestones VALUES ('night-ferry', $1, 5, 5, $2::text::timestamptz, NULL)", threshold, time
        )
    await desk.eyes.execute("INSERT INTO milestones VALUES ('night-ferry', 5, 0, -1, now(), NULL)")
    with pytest.raises(SetAside) as aside:
        await handler(desk).process([milestone(threshold) for threshold in range(1, 6)])
    assert len(aside.value.refused) == 5
    await desk.eyes.execute(
        "ALTER TABLE milestones ADD CONSTRAINT milestones_can_be CHECK (threshold >= 1 AND count >= threshold"
        " AND revision >= 1 AND reached_at BETWEEN '2000-01-01' AND '2200-01-01') NOT VALID"
    )


# ------------------------------------------------------------------------------------------------ milestones that wait


async def test_a_waiting_milestone_is_checked_again_and_mailed_with_the_numbers_that_tally_recorded(desk: Desk) -> None:
    reached = milestone(1000)
    await desk.decide(reached)
    await handler(desk, Catalogue()).process([reached])
    await desk.eyes.execute(
        "UPDATE milestones_waiting SET count = -1, revision = 9223372036854775807, reached_at = 'infinity'"
    )
    desk.catalogue.apply(petition())
    await handler(desk).release()

    (row,) = await desk.rows()
    assert (row["count"], row["reached_at"]) == (reached.count, reached.reached_at)
    assert (await desk.store.backlog()).milestones_waiting == 0


async def test_a_waiting_milestone_written_by_hand_is_refused_and_stays_to_be_looked_at(desk: Desk) -> None:
    desk.catalogue.apply(petition())
    await desk.decide(milestone(1000))
    await desk.eyes.execute(
        "INSERT INTO milestones_waiting (petition_id, threshold, count, revision, reached_at) VALUES"
        " ('night-ferry', 999, 999, 999, now()), ('night-ferry', -5, 0, -1, 'infinity'), (E'no\\nslug', 1, 1, 1, now()),"
        " ('night-ferry', 1000, 0, 0, '-infinity')"
    )
    with capture_logs() as lines:
        await handler(desk).release()
        await handler(desk).release()

    assert [row["threshold"] for row in await desk.rows()] == [1000]
    assert [line["event"] for line in lines].count("waiting_milestone_refused") == 3, "told once"
    assert desk.registry.get_sample_value("groundswell_notify_milestones_refused_total") == 3
    assert await desk.eyes.fetchval("SELECT count(*) FROM milestones_waiting WHERE refused_at IS NOT NULL") == 3
    assert (await desk.store.backlog()).milestones_waiting == 0


async def test_a_refused_milestone_that_tally_decides_later_waits_again(desk: Desk) -> None:
    reached = milestone(1000)
    await desk.milestones.add([], [reached], due_in=timedelta())
    await handler(desk, Catalogue()).release()
    assert (await desk.store.backlog()).milestones_waiting == 0

    await desk.decide(reached)
    await handler(desk, Catalogue()).process([reached])
    assert (await desk.store.backlog()).milestones_waiting == 1


# ------------------------------------------------------------------------------------------------------- forged deliveries


async def test_a_delivery_written_by_hand_is_withheld_and_the_milestones_beside_it_are_mailed(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    await write_by_hand(desk, 1_000_000)
    with capture_logs() as lines:
        async with desk.sending():
            await desk.finished()

    assert [(mail.recipient, mail.milestones) for mail in desk.smtp.taken] == [
        ("office0@harbour.example", "1000, 2500")
    ]
    assert (await words(desk))[1_000_000, "office-0"] == NOT_DECIDED
    assert desk.finished_as("forged") == 1
    assert [line["milestones"] for line in lines if line["event"] == "mail_forged"] == [[1_000_000]]
    assert "@" not in str(lines)


async def test_a_delivery_whose_id_is_not_that_of_its_fields_is_withheld(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    await desk.eyes.execute("UPDATE deliveries SET delivery_id = gen_random_uuid() WHERE target_id = 'office-0'")
    async with desk.sending():
        await desk.finished()

    assert [mail.recipient for mail in desk.smtp.taken] == ["office1@harbour.example"]
    assert (await words(desk))[1000, "office-0"] == NOT_ITS_ID


async def test_a_mail_that_is_forged_after_it_was_chosen_gives_back_what_was_folded_into_it(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    await desk.take(lease_for=timedelta(milliseconds=1))
    await desk.eyes.execute("UPDATE deliveries SET threshold = 9999 WHERE threshold = 2500")
    async with desk.sending():
        await desk.finished()

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000"]
    assert (await words(desk))[9999, "office-0"] == NOT_DECIDED


async def test_a_row_written_into_the_folded_ones_of_a_mail_is_not_named_by_it(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    await desk.take(lease_for=timedelta(milliseconds=1))
    await write_by_hand(desk, 9999)
    await desk.eyes.execute(
        "UPDATE deliveries SET state = 'folded', folded_into = $1 WHERE threshold = 9999",
        delivery_id("night-ferry", 2500, "office-0"),
    )
    async with desk.sending():
        await desk.finished()

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000, 2500"]
    assert (await words(desk))[9999, "office-0"] == NOT_DECIDED


async def test_what_stands_in_the_place_of_a_delivery_gives_way_when_its_milestone_is_reached(desk: Desk) -> None:
    desk.catalogue.apply(petition(3))
    await write_by_hand(desk, 1000, target_id="office-0", id_=uuid4())  # another id
    await write_by_hand(desk, 999, target_id="office-1", id_=delivery_id("night-ferry", 1000, "office-1"))  # its id
    await write_by_hand(desk, 1000, target_id="office-2")  # ahead of its time, and withheld for that
    await desk.eyes.execute("UPDATE deliveries SET due_at = now() + interval '1 day' WHERE target_id <> 'office-2'")
    async with desk.sending():
        await eventually(lambda: desk.finished_as("forged") == 1, "the one that is due is withheld")

    await desk.decide(reached := milestone(1000))
    await handler(desk).process([reached])
    assert desk.finished_as("forged") == 3
    async with desk.sending():
        await desk.finished()
    assert sorted(mail.recipient for mail in desk.smtp.taken) == [f"office{n}@harbour.example" for n in range(3)]
    assert await desk.states() == ["sent"] * 3


# --------------------------------------------------------------------------------------------------- who is addressed now


async def test_a_corrected_address_gets_the_mail(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.catalogue.apply(petition(2, office_0="new@harbour.example"))
    await desk.eyes.execute("UPDATE deliveries SET email = 'somebody@else.example' WHERE target_id = 'office-1'")
    with capture_logs() as lines:
        async with desk.sending():
            await desk.finished()

    assert sorted(mail.recipient for mail in desk.smtp.taken) == ["new@harbour.example", "office1@harbour.example"]
    assert [row["email"] for row in await desk.rows()] == ["new@harbour.example", "office1@harbour.example"]
    assert desk.registry.get_sample_value("groundswell_notify_readdressed_total") == 2
    assert "@" not in str(lines)


async def test_a_mail_that_was_put_off_goes_to_the_address_that_was_corrected_meanwhile(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("DATA", "451 later")

    async def correct() -> None:
        desk.catalogue.apply(petition(office_0="new@harbour.example"))

    desk.smtp.on_data = correct
    async with desk.sending():
        await desk.finished()
    assert [mail.recipient for mail in desk.smtp.taken] == ["office0@harbour.example", "new@harbour.example"]


async def test_a_target_that_the_petition_does_not_address_any_more_gets_no_mail(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.catalogue.apply(petition(1))
    async with desk.sending():
        await desk.finished()

    assert [mail.recipient for mail in desk.smtp.taken] == ["office0@harbour.example"]
    assert (await words(desk))[1000, "office-1"] == NO_TARGET
    assert (desk.finished_as("withheld"), desk.finished_as("failed")) == (1, 0)


async def test_mails_of_a_petition_that_is_not_known_wait_for_it_and_hold_nobody_up(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    await desk.reached(1000, petition_id="city-park")
    desk.catalogue.remove("night-ferry")
    async with desk.sending(claim_batch=1):
        await desk.has_taken(1)
        assert desk.smtp.taken[0].message["X-Groundswell-Petition"] == "city-park"
        backlog = await desk.store.backlog(["night-ferry"])
        assert (backlog.milestones_waiting, backlog.oldest_due) == (1, timedelta())
        assert (await desk.states()).count("pending") == 3
        desk.catalogue.apply(petition(3))
        await desk.finished()
    assert len(desk.smtp.taken) == 4


async def test_while_the_catalogue_is_behind_no_mail_goes_out(desk: Desk) -> None:
    await desk.reached(1000)
    behind = True

    async def catch_up() -> None:
        if behind:
            raise ConnectionError("not read to its end")

    desk.catch_up = catch_up  # type: ignore[method-assign]
    async with desk.sending():
        await eventually(lambda: desk.held("ConnectionError") >= 2, "the sender has asked twice")
        assert await desk.states() == ["pending"]
        behind = False
        await desk.finished()
    assert len(desk.smtp.taken) == 1


# ------------------------------------------------------------------------------------------------- rows that cannot be


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param("due_at = '2101-01-01'", id="put off until 2101"),
        pytest.param("due_at = '2000-01-01'", id="due since 2000"),
        pytest.param("due_at = '2101-01-01', chosen_at = '2900-01-01'", id="chosen in 2900"),
        pytest.param(
            "state = 'sending', chosen_at = now(), lease = gen_random_uuid(), leased_until = '2101-01-01'",
            id="held until 2101",
        ),
        pytest.param(
            "state = 'sending', chosen_at = now(), lease = gen_random_uuid(), leased_until = now(),"
            " takeovers = 2147483647, attempts = 2147483647",
            id="taken over too often to count",
        ),
        pytest.param("deferred_since = '2900-01-01', attempts = 2147483647", id="put off in 2900"),
        pytest.param("count = -1, reached_at = '2900-01-01'", id="other numbers"),
        pytest.param("target_kind = 'person', organisation_name = '', target_name = ''", id="no names"),
        pytest.param(
            r"petition_title = E'Hello\r\nBcc: all@harbour.example\r\n\r\nHa', target_name = E'O\nTo: all@else.example'",
            id="line breaks",
        ),
        pytest.param("petition_title = repeat('ferry ', 200000)", id="a title without end"),
    ],
)
async def test_a_row_that_cannot_be_is_mailed_all_the_same_and_its_neighbour_too(desk: Desk, edit: str) -> None:
    await desk.reached(1000, targets=2)
    await desk.eyes.execute(f"UPDATE deliveries SET {edit} WHERE target_id = 'office-0'")
    async with desk.sending(retry_first_seconds=0.02):
        await desk.finished()

    assert await desk.states() == ["sent", "sent"]
    edited, whole = sorted(desk.smtp.taken, key=lambda mail: mail.recipient)
    assert edited.message.keys() == whole.message.keys()
    assert [edited.recipient, whole.recipient] == ["office0@harbour.example", "office1@harbour.example"]
    assert "1,003 people" in edited.content.decode()


@pytest.fixture
async def without_rules(desk: Desk) -> AsyncIterator[Desk]:
    """A desk whose table takes every row, as it did before it had rules."""
    rules = await desk.eyes.fetch(
        "SELECT conname, pg_get_constraintdef(oid) AS rule FROM pg_constraint WHERE conname IN"
        " ('deliveries_tries', 'deliveries_times', 'deliveries_not_folded_into_itself')"
    )
    assert len(rules) == 3
    for rule in rules:
        await desk.eyes.execute(f"ALTER TABLE deliveries DROP CONSTRAINT {rule['conname']}")
    yield desk
    await desk.eyes.execute("TRUNCATE deliveries")
    for rule in rules:
        await desk.eyes.execute(f"ALTER TABLE deliveries ADD CONSTRAINT {rule['conname']} {rule['rule']}")


IMPOSSIBLE = [
    "due_at = 'infinity'",
    "due_at = '-infinity'",
    "chosen_at = 'infinity'",
    "chosen_at = '-infinity'",
    "chosen_at = '20000-01-01'",
    "state = 'sending', chosen_at = now(), lease = gen_random_uuid(), leased_until = 'infinity'",
    "state = 'sending', chosen_at = now(), lease = gen_random_uuid(), leased_until = '-infinity', takeovers = -2147483648",
    "deferred_since = 'infinity'",
    "deferred_since = '-infinity', attempts = -2147483648",
    "reached_at = '-infinity'",
    "reached_at = '20000-01-01'",
]


@pytest.mark.parametrize("edit", IMPOSSIBLE)
async def test_a_row_of_a_time_that_no_program_can_read_is_mailed_too(without_rules: Desk, edit: str) -> None:
    desk = without_rules
    await desk.reached(1000, targets=2)
    await desk.eyes.execute(f"UPDATE deliveries SET {edit} WHERE target_id = 'office-0'")
    assert (await desk.store.backlog()).collecting <= 2, "and it can be measured"
    desk.smtp.answer("RCPT", "451 not yet", "451 not yet")
    async with desk.sending():
        await desk.finished()
    assert await desk.states() == ["sent", "sent"]
    assert {mail.recipient for mail in desk.smtp.taken} == {"office0@harbour.example", "office1@harbour.example"}


@pytest.mark.parametrize("edit", [*IMPOSSIBLE, "attempts = -1", "takeovers = -1"])
async def test_rows_from_before_the_rules_are_made_possible_by_the_migration(postgres: Postgres, edit: str) -> None:
    url = await postgres.create_database(f"notify_{uuid4().hex[:8]}")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE schema_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for name, sql in migrations():
        if name < "0006":
            await connection.execute(sql)
            await connection.execute("INSERT INTO schema_migrations (name) VALUES ($1)", name)
    await connection.execute(MANUAL, uuid4(), "night-ferry", 1000, "office-0")
    await connection.execute(f"UPDATE deliveries SET {edit}")
    await migrate(url)
    for table_rule in ("deliveries_tries", "deliveries_times", "deliveries_not_folded_into_itself"):
        await connection.execute(f"ALTER TABLE deliveries VALIDATE CONSTRAINT {table_rule}")
    await connection.close()


@pytest.mark.parametrize("edit", ["attempts = -1", "takeovers = -1", "due_at = 'infinity'", "chosen_at = '-infinity'"])
async def test_the_table_takes_no_row_that_cannot_be(desk: Desk, edit: str) -> None:
    await desk.reached(1000)
    with pytest.raises(asyncpg.CheckViolationError):
        await desk.eyes.execute(f"UPDATE deliveries SET {edit}")


async def test_what_is_folded_into_no_mail_is_found_and_told(without_rules: Desk) -> None:
    desk = without_rules
    await desk.reached(1000, 2500, 5000, 10_000)
    await desk.take()
    await desk.eyes.execute(
        "UPDATE deliveries SET folded_into = other.delivery_id FROM deliveries AS other"
        " WHERE (deliveries.threshold, other.threshold) IN ((1000, 2500), (2500, 1000), (5000, 5000))"
    )
    strays = await desk.store.withhold_strays()

    assert sorted(stray.threshold for stray in strays) == [1000, 2500, 5000]
    assert await desk.states() == ["failed", "failed", "failed", "sending"]
    assert (await words(desk))[5000, "office-0"] == NO_MAIL
    assert await desk.store.withhold_strays() == []


# ------------------------------------------------------------------------------------------------- bugs about one mail


async def test_a_mail_that_cannot_be_written_for_a_bug_is_put_off_and_the_others_go_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.reached(1000, targets=2)
    write = MailWriter.write
    failures = 2

    def failing(self: MailWriter, claim: Claim) -> object:
        nonlocal failures
        if claim.delivery.target_id == "office-0" and failures:
            failures -= 1
            raise KeyError(claim.delivery.email)
        return write(self, claim)

    monkeypatch.setattr(MailWriter, "write", failing)
    with capture_logs() as lines:
        async with desk.sending():
            await desk.finished()

    assert [mail.recipient for mail in desk.smtp.taken] == ["office1@harbour.example", "office0@harbour.example"]
    assert [(row["state"], row["attempts"]) for row in await desk.rows()] == [("sent", 3), ("sent", 1)]
    assert desk.registry.get_sample_value("groundswell_notify_mail_bugs_total") == 2
    assert [line["cause"] for line in lines if line["event"] == "mail_bug"] == ["KeyError"] * 2
    assert "@" not in str(lines)


async def test_a_mail_whose_end_cannot_be_written_down_stays_held_and_the_others_go_out(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    await desk.eyes.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries FOR EACH ROW"
        " WHEN (NEW.state = 'sent' AND NEW.target_id = 'office-0') EXECUTE FUNCTION refuse()"
    )
    try:
        async with desk.sending():
            await desk.has_taken(3)
            await eventually(lambda: desk.finished_as("sent") == 2, "the others are sent")
        assert sorted(await desk.states()) == ["sending", "sent", "sent"]
    finally:
        await desk.eyes.execute("DROP FUNCTION refuse CASCADE")
    assert len(desk.smtp.taken) == 3, "the mail that the server has taken does not go out again at once"
