"""The sender when things break: servers that go away, replies that are lost, senders that crash, senders that race."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg

from deploy.local.parts.postgres import Postgres
from services.notify.mail.refusals import Cause
from tests.integration.notify.notify_desk import (
    MINUTE,
    Desk,
    deliveries,
    message_id,
    milestone,
)
from tests.support.scripted_smtp import CUT
from tests.support.waiting import eventually

# ----------------------------------------------------------------------------------------------- what breaks on the way


async def test_a_server_that_is_away_costs_no_delivery_an_attempt(desk: Desk) -> None:
    await desk.smtp.stop()
    await desk.reached(1000)
    sender = desk.sender()
    async with desk.sending(sender):
        await eventually(lambda: desk.held("SmtpAway") >= 2, "the sender has found nobody there, twice")
        assert "cannot be reached" in (await sender._relay.check() or "")
        (row,) = await desk.rows()
        assert (row["state"], row["attempts"], row["chosen_at"]) == ("pending", 0, None)
        await desk.reached(2500)  # meanwhile; still free to share the mail
        await desk.smtp.start()
        await desk.finished()
        assert await sender._relay.check() is None

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000, 2500"]


async def test_a_lost_reply_is_followed_by_the_same_mail_again(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("DATA", CUT)
    async with desk.sending():
        await desk.finished()

    first, second = desk.smtp.taken
    assert first == second, "a copy can be recognised: it is the same mail, Message-ID and all"


async def test_a_mail_that_breaks_every_connection_does_not_hold_up_the_others(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    desk.smtp.always("office0@harbour.example", CUT)
    async with desk.sending():
        await eventually(
            lambda: (
                {mail.recipient for mail in desk.smtp.taken}
                == {f"office{number}@harbour.example" for number in range(3)}
            ),
            "all mails were offered",
        )

        async def others_sent() -> bool:
            return (await desk.states())[1:] == ["sent", "sent"]

        await eventually(others_sent, "the others are sent")


async def test_a_server_that_ends_the_connection_between_two_mails_gets_the_rest_over_a_new_one(desk: Desk) -> None:
    desk.smtp.mails_per_connection = 2
    await desk.reached(1000, targets=5)
    async with desk.sending():
        await desk.finished()

    assert len(desk.smtp.taken) == 5
    assert {row["attempts"] for row in await desk.rows()} == {1}
    assert desk.smtp.connections == 3


async def test_a_server_that_says_421_between_two_mails_gets_the_rest_over_a_new_connection(desk: Desk) -> None:
    desk.smtp.answer("MAIL", "250 OK", "421 enough for one connection")
    await desk.reached(1000, targets=2)
    async with desk.sending():
        await desk.finished()

    assert len(desk.smtp.taken) == 2
    assert {row["attempts"] for row in await desk.rows()} == {1}


async def test_a_server_that_stops_answering_is_left_after_the_timeout(desk: Desk) -> None:
    await desk.reached(1000)
    never = asyncio.Event()

    async def hang() -> None:
        desk.smtp.on_data = None
        await never.wait()

    desk.smtp.on_data = hang
    async with desk.sending(smtp_timeout_seconds=2):
        await desk.finished()

    first, second = desk.smtp.taken
    assert first == second


async def test_the_servers_yes_is_written_down_even_when_postgres_went_away_before_it(
    desk: Desk, postgres: Postgres
) -> None:
    await desk.reached(1000)

    stopped = asyncio.Event()

    async def postgres_stops() -> None:
        desk.smtp.on_data = None
        await postgres.stop()
        stopped.set()

    desk.smtp.on_data = postgres_stops
    async with desk.sending(smtp_timeout_seconds=60, lease_seconds=120):  # the server waits for PostgreSQL's end
        await stopped.wait()
        await eventually(lambda: desk.held() >= 2, "the sender has tried to write it down, twice")
        await postgres.start()
        desk.eyes = await asyncpg.connect(desk.url)
        await desk.finished()

    assert len(desk.smtp.taken) == 1, "not sent a second time"
    assert await desk.states() == ["sent"]


async def test_a_stop_finishes_the_mail_in_hand_and_gives_back_the_others(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        in_hand.set()
        await go_on.wait()

    desk.smtp.on_data = slow
    async with desk.sending() as sender:
        await in_hand.wait()
        sender.stop()
        go_on.set()
        assert await sender.ended(within=60)

    assert sorted(await desk.states()) == ["pending", "pending", "sent"]
    assert await desk.store.anything_due(), "the others are due at once, for the next sender"
    desk.smtp.on_data = None
    async with desk.sending():
        await desk.finished()
    assert len(desk.smtp.taken) == 3


# ----------------------------------------------------------------------------------------------- several senders, crashes


async def test_two_senders_send_each_mail_once(desk: Desk) -> None:
    for number in range(10):
        await desk.reached(1000, 2500, targets=4, petition_id=f"petition-{number}")
    async with desk.sending(claim_batch=3), desk.sending(claim_batch=3):
        await desk.finished()

    ids = [mail.id for mail in desk.smtp.taken]
    assert len(ids) == 40
    assert len(set(ids)) == 40


async def test_the_mail_of_a_sender_that_crashed_is_sent_by_another_with_the_same_milestones(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    _, (crashed,) = await desk.take(lease_for=timedelta(milliseconds=1))
    await desk.reached(5000)
    async with desk.sending():
        await desk.finished()

    assert [(mail.id, mail.milestones) for mail in desk.smtp.taken] == [
        (message_id(2500), "1000, 2500"),
        (message_id(5000), "5000"),
    ]
    assert crashed.milestones == [1000, 2500]
    assert desk.registry.get_sample_value("groundswell_notify_leases_expired_total") == 1


async def test_a_mail_whose_senders_crash_is_held_twice_as_long_each_time(desk: Desk) -> None:
    await desk.reached(1000)
    held = []
    for _ in range(4):
        await desk.take()
        held.append(await desk.eyes.fetchval("SELECT leased_until - now() FROM deliveries"))
        await desk.eyes.execute("UPDATE deliveries SET leased_until = now()")

    assert [round(lease / MINUTE) for lease in held] == [1, 2, 4, 8]


async def test_a_mail_that_is_held_is_nobody_elses(desk: Desk) -> None:
    await desk.reached(1000)
    _, held = await desk.take()
    await desk.reached(2500)

    assert len(held) == 1
    assert (await desk.take())[1] == [], "neither the mail, nor a second one to the same target beside it"
    assert not await desk.store.anything_due()


async def test_what_a_slow_sender_reports_after_its_lease_ran_out_does_not_undo_what_happened_since(desk: Desk) -> None:
    await desk.reached(1000)
    slow_lease, (mail,) = await desk.take(lease_for=timedelta(milliseconds=1))
    await eventually(desk.store.anything_due, "the lease has run out")
    await desk.take()
    delivery = mail.delivery.delivery_id
    await desk.store.sent(delivery, "250 OK", "office0@harbour.example")

    assert not await desk.store.deferred(delivery, slow_lease, "451 later", retry_in=MINUTE)
    assert not await desk.store.failed(delivery, slow_lease, "550 no", cause=Cause.ADDRESS)
    await desk.store.give_back(slow_lease)
    assert await desk.states() == ["sent"]


async def test_a_slow_senders_yes_counts_although_another_holds_the_mail_by_now(desk: Desk) -> None:
    await desk.reached(1000)
    _, (mail,) = await desk.take(lease_for=timedelta(milliseconds=1))
    await eventually(desk.store.anything_due, "the lease has run out")
    other_lease, _ = await desk.take()
    await desk.store.sent(mail.delivery.delivery_id, "250 OK", mail.delivery.email)

    assert not await desk.store.deferred(mail.delivery.delivery_id, other_lease, "451 later", retry_in=MINUTE)
    assert await desk.states() == ["sent"]


async def test_while_one_sender_chooses_another_makes_no_second_mail_of_a_later_milestone(desk: Desk) -> None:
    await desk.reached(1000)
    chooser = await asyncpg.connect(desk.url)
    async with chooser.transaction():
        await chooser.execute("SELECT FROM deliveries FOR UPDATE")
        await desk.reached(2500)
        assert (await desk.take())[1] == []
    await chooser.close()

    assert [claim.milestones for claim in (await desk.take())[1]] == [[1000, 2500]]


async def test_two_mails_chosen_for_one_target_at_the_same_moment_become_one_after_the_other(desk: Desk) -> None:
    await desk.reached(1000)
    chooser = await asyncpg.connect(desk.url)
    async with chooser.transaction():
        await chooser.execute("UPDATE deliveries SET chosen_at = now()")
        # Written by a transaction that began earlier, so it seems to be the one that has collected longest.
        await desk.decide(milestone(2500))
        await desk.milestones.add(deliveries(2500), [], due_in=timedelta(seconds=-10))
        other = asyncio.create_task(desk.take())

        async def waits() -> bool:
            waiting: bool = await chooser.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')"
            )
            return waiting

        await eventually(waits, "the other chooser has met the first one's mail")
    await chooser.close()

    assert (await other)[1] == []
    assert [claim.milestones for claim in (await desk.take())[1]] == [[1000]]


# ----------------------------------------------------------------------------------------------- milestones that wait


async def test_a_milestone_of_an_unknown_petition_waits_and_becomes_deliveries_once(desk: Desk) -> None:
    reached = milestone(1000)
    await desk.decide(reached)
    await desk.milestones.add([], [reached, reached], due_in=timedelta())
    await desk.milestones.add([], [reached], due_in=timedelta())
    assert (await desk.store.backlog()).milestones_waiting == 1
    assert await desk.milestones.petitions_waited_for() == ["night-ferry"]

    released = await asyncio.gather(
        *(
            desk.milestones.release(["night-ferry"], lambda each: deliveries(each.threshold), due_in=timedelta())
            for _ in range(2)
        )
    )

    assert sorted(len(written.created) for written in released) == [0, 1]
    assert (await desk.store.backlog()).milestones_waiting == 0
    assert await desk.states() == ["pending"]


async def test_the_backlog_says_what_is_not_finished_and_for_how_long_it_has_been_due(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    await desk.reached(1000, petition_id="city-park", hours=1)
    await desk.eyes.execute("UPDATE deliveries SET due_at = now() - interval '1 hour' WHERE target_id = 'office-1'")
    backlog = await desk.store.backlog()
    assert (backlog.collecting, backlog.waiting, backlog.sending) == (3, 0, 0)
    assert timedelta(hours=1) <= backlog.oldest_due < timedelta(hours=1, minutes=5)

    await desk.take()
    backlog = await desk.store.backlog()
    assert (backlog.collecting, backlog.waiting, backlog.sending) == (1, 0, 2)
    assert backlog.oldest_due == timedelta()
