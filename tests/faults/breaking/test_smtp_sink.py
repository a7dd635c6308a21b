"""The SMTP server of the fault harness: what it keeps, and how it misbehaves. The client is notify's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.notify.deliveries import Claim, Delivery
from services.notify.mail.letter import Mail as Written
from services.notify.mail.letter import MailWriter
from services.notify.mail.replies import Reply, Stage
from services.notify.mail.smtp import SmtpRelay, SmtpServer, SmtpSession
from services.notify.mail.smtp_session import MailCut
from tests.faults.breaking.smtp_sink import SmtpSink
from tests.support.scripted_smtp import Stage as ServerStage


@pytest.fixture
async def sink() -> AsyncIterator[SmtpSink]:
    listening = SmtpSink()
    async with listening:
        yield listening


@pytest.fixture
async def session(sink: SmtpSink) -> AsyncIterator[SmtpSession]:
    relay = SmtpRelay(SmtpServer.parse(sink.url), timeout_seconds=1.0)
    async with relay.session() as connected:
        yield connected


def a_mail(to: str = "harbour@offices.test", folded: tuple[int, ...] = ()) -> Written:
    now = datetime.now(UTC)
    delivery = Delivery(
        delivery_id=uuid4(),
        petition_id="ferry-at-night",
        threshold=500,
        target_id="harbour",
        petition_title="A ferry at night",
        organisation_name="The islands",
        target_name="The Harbour Master",
        target_kind="person",
        email=to,
        count=512,
        reached_at=now,
    )
    claim = Claim(
        delivery=delivery, folded=folded, chosen_at=now, attempts=0, deferred_for=timedelta(), taken_over=False
    )
    return MailWriter(mail_from="petitions@islands.test", pages_url="http://islands.test").write(claim)


async def test_it_keeps_who_got_what_and_that_it_said_yes(sink: SmtpSink, session: SmtpSession) -> None:
    reply = await session.send(a_mail(folded=(100, 250)))
    assert reply.code == 250
    (mail,) = sink.mails
    assert (mail.recipient, mail.petition_id, mail.milestones) == (
        "harbour@offices.test",
        "ferry-at-night",
        (100, 250, 500),
    )
    assert mail.message_id.endswith("@islands.test>")
    assert mail.accepted
    assert mail.kept
    assert not mail.refused


@pytest.mark.parametrize(
    ("stage", "seen_as"), [("MAIL", Stage.SENDER), ("RCPT", Stage.RECIPIENT), ("DATA", Stage.CONTENT)]
)
async def test_it_puts_mails_off_at_a_stage_until_that_is_lifted(
    sink: SmtpSink, session: SmtpSession, stage: ServerStage, seen_as: Stage
) -> None:
    with sink.deferring(stage) as trouble:
        reply = await session.send(a_mail())
    assert (reply.code, reply.stage) == (451, seen_as)
    assert trouble.hits == 1
    assert not any(mail.kept for mail in sink.mails)
    assert (await session.send(a_mail())).code == 250


async def test_it_refuses_one_recipient_for_good_and_takes_the_others(sink: SmtpSink, session: SmtpSession) -> None:
    with sink.refusing_one_recipient() as trouble:
        replies: list[Reply] = [
            await session.send(a_mail(to)) for to in ("one@offices.test", "two@offices.test", "one@offices.test")
        ]
    assert [reply.code for reply in replies] == [550, 250, 550]
    assert [mail.refused for mail in sink.mails] == [True, False, True]
    assert trouble.recipient == "one@offices.test"


async def test_it_has_a_mail_whose_sender_never_heard_so_and_a_copy_is_recognised(
    sink: SmtpSink, session: SmtpSession
) -> None:
    mail = a_mail()
    with sink.dropping(), pytest.raises(MailCut):
        await session.send(mail)
    await session.send(mail)
    first, copy = sink.mails
    assert (first.answer, first.kept, first.accepted) == (None, True, False)
    assert copy.accepted
    assert (first.message_id, first.digest) == (copy.message_id, copy.digest)


async def test_a_slow_answer_is_an_answer(sink: SmtpSink, session: SmtpSession) -> None:
    with sink.slow(0.1) as trouble:
        assert (await session.send(a_mail())).code == 250
    assert trouble.hits == 3


async def test_an_answer_that_is_too_late_is_none_but_the_mail_is_there(sink: SmtpSink, session: SmtpSession) -> None:
    with sink.slow(1.5, "DATA"), pytest.raises(MailCut):
        await session.send(a_mail())
    (mail,) = sink.mails
    assert mail.kept
    assert not mail.accepted


async def test_an_address_without_a_mailbox_is_refused_before_the_content_until_it_has_one(
    sink: SmtpSink, session: SmtpSession
) -> None:
    sink.unknown.add("one@offices.test")
    replies = [await session.send(a_mail(to)) for to in ("one@offices.test", "two@offices.test")]
    assert [(reply.code, reply.stage) for reply in replies] == [(550, Stage.RECIPIENT), (250, Stage.CONTENT)]
    assert [mail.recipient for mail in sink.mails] == ["two@offices.test"]
    sink.unknown.clear()
    assert (await session.send(a_mail("one@offices.test"))).code == 250
