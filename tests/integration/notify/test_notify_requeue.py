"""Failed mails are sent by an operator's command, and its output."""

from __future__ import annotations

from typing import cast
from uuid import uuid4

import asyncpg
from structlog.testing import capture_logs

from deploy.local.parts.postgres import Postgres
from deploy.migrations import migrate, migrations
from services.notify.deliveries import delivery_id
from services.notify.mail.refusals import Cause
from services.notify.milestones.handlers import MilestoneHandler
from services.notify.outbox.corrections import Corrections
from services.notify.outbox.requeue import ONE_AT_A_TIME
from services.notify.upkeep import Upkeep
from shared.kafka.broadcasting.catalogue_feed import CatalogueFeed
from tests.integration.notify.notify_desk import MINUTE, Desk, message_id, open_desk, petition
from tests.integration.notify.requeueing import FERRY, NEW, OLD, Feed, correct, fail, retry, send
from tests.support.scripted_smtp import CUT

# ------------------------------------------------------------------------------------------------------------- by command


async def test_an_operator_makes_due_what_a_server_did_not_take_and_nothing_else(desk: Desk) -> None:
    await fail(desk, 1000, answer="550 5.7.1 not from you")
    await fail(desk, 2500)
    await desk.reached(5000)
    await send(desk)
    done = await retry(desk)

    assert len(done.again) == 2
    assert done.left == []
    assert await send(desk) == [(OLD, "5000"), (OLD, "1000, 2500")]
    assert (await retry(desk)).again == [], "what was sent is not sent again"


async def test_a_mail_that_the_server_may_have_taken_is_sent_again_as_the_same_mail(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    desk.smtp.answer("DATA", CUT)
    desk.smtp.answer("RCPT", "250 OK", "550 5.7.1 not any more")
    await send(desk)
    await fail(desk, 5000, answer="550 5.7.1 not any more")
    await retry(desk)
    await send(desk)

    first, again, later = desk.smtp.taken
    assert first == again
    assert later.milestones == "5000"


async def test_of_two_such_mails_to_a_target_the_second_waits_for_the_first(desk: Desk) -> None:
    for threshold in (1000, 2500):
        await desk.reached(threshold)
        desk.smtp.answer("DATA", CUT)
        desk.smtp.answer("RCPT", "250 OK", "550 5.7.1 not any more")
        await send(desk)
    done = await retry(desk)
    assert (len(done.again), [left.why for left in done.left]) == (1, [ONE_AT_A_TIME])
    await send(desk)
    await retry(desk)
    await send(desk)

    copies = [mail.id for mail in desk.smtp.taken]
    assert sorted(copies) == sorted([message_id(1000), message_id(2500)] * 2)


async def test_a_mail_that_is_under_way_is_not_touched(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    lease, (claim, _) = await desk.take(lease_for=MINUTE)
    assert (await retry(desk)).again == []
    assert await desk.store.failed(claim.delivery.delivery_id, lease, "550 no (RCPT TO)", cause=Cause.ADDRESS)
    assert (await retry(desk)).again == [claim.delivery.delivery_id]
    assert not await desk.store.deferred(claim.delivery.delivery_id, lease, "451 later", retry_in=MINUTE)


# ------------------------------------------------------------------------------------------------ what is told of it


async def test_what_became_due_again_is_counted_and_logged_once_without_an_address(desk: Desk) -> None:
    await fail(desk, 1000, 2500)
    desk.catalogue.apply(petition(office_0=NEW))
    feed = cast("CatalogueFeed", Feed(desk.catalogue))
    handler = MilestoneHandler(
        catalogue=desk.catalogue, feed=feed, store=desk.milestones, metrics=desk.metrics, coalesce_seconds=0
    )
    corrections = Corrections(catalogue=desk.catalogue, feed=feed, store=desk.store)
    with capture_logs() as lines:
        upkeep = Upkeep(handler=handler, corrections=corrections, store=desk.store, metrics=desk.metrics)
        await upkeep.turn(0)
        await desk.eyes.execute("UPDATE deliveries SET state = 'failed', chosen_at = now(), failed_for = 'server'")
        await retry(desk)
        await upkeep.turn(1)
        await upkeep.turn(2)

    told = [line for line in lines if line["event"] == "deliveries_requeued"]
    assert [(line["because"], line["deliveries"], line["actor"]) for line in told] == [
        ("address", 2, None),
        ("command", 2, "Kim, helpdesk"),
    ]
    assert "@" not in str(lines)
    for cause in ("address", "command"):
        assert desk.registry.get_sample_value("groundswell_notify_requeued_total", {"cause": cause}) == 2


async def test_the_gauge_has_what_failed_by_cause(desk: Desk) -> None:
    await fail(desk, 1000)
    await fail(desk, 2500, answer="550 5.7.1 not from you")

    assert await desk.store.failed_by_cause() == {Cause.ADDRESS: 1, Cause.SERVER: 1}


async def test_mails_that_failed_before_the_upgrade_go_to_the_corrected_address_too(postgres: Postgres) -> None:
    url = await postgres.create_database(f"notify_{uuid4().hex[:8]}")
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE schema_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for name, sql in migrations():
        if name < "0009":
            await connection.execute(sql)
            await connection.execute("INSERT INTO schema_migrations (name) VALUES ($1)", name)
    for number, words in enumerate(
        ("550 5.1.1 no such office (RCPT TO)", "given up after 5 days; last: connection lost (DATA)")
    ):
        await connection.execute(
            "INSERT INTO deliveries (delivery_id, petition_id, threshold, target_id, petition_title, organisation_name,"
            " target_name, target_kind, email, count, reached_at, due_at, state, chosen_at, last_reply)"
            " VALUES ($1, $2, 1000, $3, 'Title', 'Friends', 'Office', 'body', $4, 7, now(), now(), 'failed', now(), $5)",
            delivery_id(FERRY, 1000, f"office-{number}"),
            FERRY,
            f"office-{number}",
            f"office{number}@harbour.example",
            words,
        )
    await migrate(url)
    assert await connection.fetchval("SELECT maybe_taken FROM deliveries WHERE target_id = 'office-1'")
    await connection.close()
    async with open_desk(url, empty=False) as desk:
        desk.catalogue.apply(petition(2, office_0=NEW, office_1="other@harbour.example"))
        await correct(desk)
        assert await desk.states() == ["pending", "failed"]
