"""The sender on a real PostgreSQL and SMTP server: the mails and their recipients, and the effect of a server's answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from structlog.testing import capture_logs

from services.notify.deliveries import delivery_id
from services.notify.outbox import delivering
from tests.integration.notify.notify_desk import Desk, message_id, petition
from tests.support.scripted_smtp import ScriptedSmtp
from tests.support.waiting import eventually

# ---------------------------------------------------------------------------------------------------------- what is sent


async def test_every_target_gets_one_mail_and_the_row_keeps_the_servers_words(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    async with desk.sending():
        await desk.finished()

    assert sorted(mail.recipient for mail in desk.smtp.taken) == [f"office{n}@harbour.example" for n in range(3)]
    assert {mail.id for mail in desk.smtp.taken} == {message_id(1000, target) for target in range(3)}
    assert {(row["state"], row["attempts"], row["last_reply"]) for row in await desk.rows()} == {
        ("sent", 1, "250 OK (DATA)")
    }
    assert desk.smtp.connections == 1, "one connection carries them all"
    assert desk.registry.get_sample_value("groundswell_notify_deliveries_total", {"outcome": "sent"}) == 3


async def test_a_milestone_that_is_delivered_again_is_not_mailed_again(desk: Desk) -> None:
    await desk.reached(1000)
    async with desk.sending():
        await desk.finished()
        await desk.reached(1000)
        await desk.reached(2500)
        await desk.has_taken(2)

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000", "2500"]


async def test_one_surge_across_several_milestones_is_one_mail_that_names_them_all(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    await desk.reached(5000, 2500, targets=2)
    async with desk.sending():
        await desk.finished()

    assert [(mail.milestones, mail.message["X-Groundswell-Petition"]) for mail in desk.smtp.taken] == [
        ("1000, 2500, 5000", "night-ferry")
    ] * 2
    assert {mail.id for mail in desk.smtp.taken} == {message_id(5000, target) for target in range(2)}
    rows = await desk.rows()
    assert [row["state"] for row in rows] == ["folded"] * 4 + ["sent"] * 2
    for row in rows[:4]:
        assert row["folded_into"] == delivery_id("night-ferry", 5000, row["target_id"])


async def test_milestones_collect_until_the_first_of_them_has_waited_long_enough(desk: Desk) -> None:
    await desk.reached(1000, minutes=1)
    await desk.reached(2500, minutes=2)
    assert not await desk.store.anything_due()

    await desk.eyes.execute("UPDATE deliveries SET due_at = now() WHERE threshold = 1000")
    async with desk.sending():
        await desk.finished()

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000, 2500"]


async def test_milestones_of_different_petitions_are_different_mails(desk: Desk) -> None:
    await desk.reached(1000)
    await desk.reached(1000, petition_id="city-park")
    async with desk.sending():
        await desk.finished()

    assert len(desk.smtp.taken) == 2


async def test_no_log_line_holds_an_address(desk: Desk) -> None:
    await desk.reached(1000, targets=3)
    desk.smtp.answer("RCPT", "550 office0@harbour.example is unknown", "451 office1@harbour.example is busy")
    with capture_logs() as lines:
        async with desk.sending():
            await desk.finished()

    assert {line["event"] for line in lines} >= {"mail_sent", "mail_deferred", "mail_failed"}
    assert "@" not in str(lines)


# ------------------------------------------------------------------------------------------------------ what a server says


async def test_a_mail_that_is_put_off_is_sent_again_as_the_same_mail(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("DATA", "451 4.3.0 try later", "452 4.3.1 later still")
    async with desk.sending():
        await desk.finished()

    first, second, third = desk.smtp.taken
    assert first == second == third, "Message-ID and every other byte"
    (row,) = await desk.rows()
    assert (row["state"], row["attempts"], row["last_reply"]) == ("sent", 3, "250 OK (DATA)")
    assert row["deferred_since"] is not None


async def test_a_refused_mail_is_never_tried_again_and_says_why(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.smtp.answer("RCPT", "550 5.1.1 no such office")
    async with desk.sending():
        await desk.finished()
        await desk.reached(2500)
        await desk.has_taken(2)
        await desk.finished()

    failed = [row for row in await desk.rows() if row["state"] == "failed"]
    assert [row["last_reply"] for row in failed] == ["550 5.1.1 no such office (RCPT TO)"]
    assert not await desk.store.anything_due()


async def test_the_next_attempt_waits_for_the_time_in_the_row(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("RCPT", "451 greylisted")
    async with desk.sending(retry_first_seconds=600.0, retry_most_seconds=600.0):

        async def put_off() -> bool:
            return bool((await desk.rows())[0]["attempts"] == 1)

        await eventually(put_off, "the mail was put off")

    (row,) = await desk.rows()
    wait = row["due_at"] - datetime.now(UTC)
    assert row["state"] == "pending"
    assert timedelta(minutes=4) < wait <= timedelta(minutes=10)


async def test_a_mail_that_is_put_off_for_days_is_given_up_with_the_last_words(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("RCPT", *["451 not today"] * 3)
    async with desk.sending(give_up_days=0.0000001):
        await desk.finished()

    (row,) = await desk.rows()
    assert row["state"] == "failed"
    assert row["attempts"] == 2, "the first refusal only starts the clock"
    assert "451 not today" in row["last_reply"]


class MonthAhead(datetime):
    """The clock of a machine that is wrong."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> MonthAhead:
        """A month from now."""
        return cls.fromtimestamp(time.time() + 30 * 86_400, tz)


async def test_a_sender_whose_clock_is_a_month_ahead_does_not_give_mails_up_for_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "datetime", MonthAhead)
    await desk.reached(1000)
    desk.smtp.answer("RCPT", *["451 not today"] * 3)
    async with desk.sending(give_up_days=5):
        await desk.finished()

    (row,) = await desk.rows()
    assert (row["state"], row["attempts"]) == ("sent", 4)


async def test_milestones_that_come_while_a_mail_is_put_off_go_into_a_later_one(desk: Desk) -> None:
    await desk.reached(1000, 2500)
    desk.smtp.answer("DATA", "451 later")

    async def five_thousand_and_more() -> None:
        desk.smtp.on_data = None
        await desk.reached(5000)
        await desk.reached(10_000)

    desk.smtp.on_data = five_thousand_and_more
    async with desk.sending():
        await desk.finished()

    assert [(mail.id, mail.milestones) for mail in desk.smtp.taken] == [
        (message_id(2500), "1000, 2500"),
        (message_id(2500), "1000, 2500"),
        (message_id(10_000), "5000, 10000"),
    ]


async def test_a_server_that_refuses_our_sender_fails_no_delivery_and_is_named(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("MAIL", "550 not your address", "530 authentication required")
    sender = desk.sender()
    async with desk.sending(sender):

        async def named() -> bool:
            return "refuses this installation: 5" in (await sender._relay.check() or "")

        await eventually(named, "the readiness check names the refusal")
        await desk.finished()
        assert await sender._relay.check() is None

    (row,) = await desk.rows()
    assert (row["state"], row["attempts"]) == ("sent", 1)


async def test_an_address_that_is_none_fails_and_the_others_are_mailed(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.catalogue.apply(petition(2, office_0="x@harbour.example>\r\nRCPT TO:<all@harbour.example"))
    async with desk.sending():
        await desk.finished()

    assert await desk.states() == ["failed", "sent"]
    assert [mail.recipient for mail in desk.smtp.taken] == ["office1@harbour.example"]


async def test_an_international_address_needs_a_server_that_knows_them(desk: Desk) -> None:
    await desk.reached(1000)
    desk.catalogue.apply(petition(office_0="büro@häfen.example"))
    async with desk.sending():
        await desk.finished()
    (row,) = await desk.rows()
    assert row["state"] == "failed"
    assert "SMTPUTF8" in row["last_reply"]

    async with ScriptedSmtp(utf8=True) as international:
        await desk.reached(2500)
        desk.catalogue.apply(petition(office_0="büro@häfen.example"))
        async with desk.sending(smtp_url=international.url):
            await desk.finished()
    assert [mail.recipient for mail in international.taken] == ["büro@häfen.example"]


async def test_a_server_that_answers_in_no_known_alphabet_is_understood_by_its_code(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.raw_answer = b"250 \xff\xfe\x00 done"
    async with desk.sending():
        await desk.finished()

    (row,) = await desk.rows()
    assert row["state"] == "sent"
    assert len(desk.smtp.taken) == 1
