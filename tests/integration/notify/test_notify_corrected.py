"""Mails that failed go out when the petition that they failed for is corrected."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from services.notify.deliveries import NO_TARGET, delivery_id
from services.notify.mail.refusals import ALREADY_TOLD, MOVED, NO_ADDRESS, Cause
from services.notify.outbox.corrections import Corrections
from shared.contract.catalogue import Catalogue
from shared.kafka.broadcasting.catalogue_feed import CatalogueBehind, CatalogueFeed
from tests.integration.notify.notify_desk import Desk, message_id, petition
from tests.integration.notify.requeueing import FERRY, NEW, OLD, UNKNOWN, Feed, correct, fail, send

# ----------------------------------------------------------------------------------------------- an address is corrected


@pytest.mark.parametrize("answer", [UNKNOWN, "552 5.2.2 mailbox full", "550 5.1.2 no such domain", "501 bad address"])
async def test_a_mail_that_failed_for_its_address_goes_to_the_corrected_one(desk: Desk, answer: str) -> None:
    await fail(desk, 1000, answer=answer)
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)

    assert await send(desk) == [(NEW, "1000")]
    (row,) = await desk.rows()
    assert (row["state"], row["email"], row["failed_for"], row["requeued_for"]) == ("sent", NEW, None, "address")


@pytest.mark.parametrize("wrong", [NEW.replace("@", " at "), f"{NEW}, {NEW}", "no address"])
async def test_an_address_that_was_none_is_tried_when_it_is_one(desk: Desk, wrong: str) -> None:
    await desk.reached(1000)
    desk.catalogue.apply(petition(office_0=wrong))
    assert await send(desk) == []
    (row,) = await desk.rows()
    assert (row["state"], row["last_reply"], row["failed_for"]) == ("failed", NO_ADDRESS, "address")

    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)
    assert await send(desk) == [(NEW, "1000")]


async def test_what_failed_in_several_surges_is_one_letter_about_the_newest_milestone(desk: Desk) -> None:
    await fail(desk, 1000)
    await desk.reached(2500)
    await fail(desk, 5000)  # and names 2,500 as well
    assert await desk.states() == ["failed", "folded", "failed"]
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)

    assert await send(desk) == [(NEW, "1000, 2500, 5000")]
    assert desk.smtp.taken[0].id == message_id(5000)
    assert await desk.states() == ["folded", "folded", "sent"]


@pytest.mark.parametrize("answer", ["550 5.7.1 not from you", "554 5.6.0 this content", "503 5.5.1 bad sequence"])
async def test_what_failed_for_content_or_sender_is_not_tried_at_another_address(desk: Desk, answer: str) -> None:
    await fail(desk, 1000, answer=answer)
    desk.catalogue.apply(petition(office_0=NEW))
    feed = Feed(desk.catalogue)
    await correct(desk, feed)

    assert await desk.states() == ["failed"]
    assert feed.caught_up == 0


async def test_a_name_that_is_corrected_alone_mails_nobody(desk: Desk) -> None:
    await fail(desk, 1000)
    changed = petition()
    changed.targets[0] = changed.targets[0].model_copy(update={"name": "The Office of the Harbour"})
    desk.catalogue.apply(changed)
    await correct(desk)

    assert await desk.states() == ["failed"]


async def test_one_correction_is_one_attempt_also_if_it_is_wrong_as_well(desk: Desk) -> None:
    await fail(desk, 1000)
    for email in (NEW, OLD):  # corrected, and changed back: each change counts as meant
        desk.catalogue.apply(petition(office_0=email))
        await correct(desk)
        desk.smtp.answer("RCPT", UNKNOWN)
        assert await send(desk) == []
        (row,) = await desk.rows()
        assert (row["state"], row["attempts"], row["email"]) == ("failed", 1, email)
        await correct(desk)
        assert await desk.states() == ["failed"], "the same address is not tried again"


async def test_two_processes_that_see_a_correction_make_it_due_once(desk: Desk) -> None:
    await fail(desk, 1000, targets=3)
    desk.catalogue.apply(petition(3, office_0="a@x.example", office_1="b@x.example", office_2="c@x.example"))
    await asyncio.gather(*(correct(desk) for _ in range(4)))

    noted = await asyncio.gather(*(desk.store.note_requeued() for _ in range(3)))
    assert sum(one.deliveries for found in noted for one in found) == 3
    assert sorted(recipient for recipient, _ in await send(desk)) == ["a@x.example", "b@x.example", "c@x.example"]


async def test_a_process_whose_catalogue_is_old_does_not_take_the_old_address_for_a_correction(desk: Desk) -> None:
    await fail(desk, 1000)
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)
    desk.smtp.answer("RCPT", UNKNOWN)
    await send(desk)  # failed at the new address

    behind = Catalogue()
    behind.apply(petition())
    feed = Feed(behind, petition(office_0=NEW))
    await Corrections(catalogue=behind, feed=cast("CatalogueFeed", feed), store=desk.store).requeue()
    assert feed.caught_up == 1
    assert await desk.states() == ["failed"]


async def test_nothing_is_made_due_by_a_catalogue_that_cannot_be_read_to_its_end(desk: Desk) -> None:
    await fail(desk, 1000)
    desk.catalogue.apply(petition(office_0=NEW))
    with pytest.raises(CatalogueBehind):
        await correct(desk, Feed(desk.catalogue, behind=True))
    assert await desk.states() == ["failed"]


async def test_a_correction_that_came_while_the_mail_was_on_its_way_to_the_old_address_counts(desk: Desk) -> None:
    await desk.reached(1000)
    lease, (claim,) = await desk.take()
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)
    await desk.store.failed(claim.delivery.delivery_id, lease, f"{UNKNOWN} (RCPT TO)", cause=Cause.ADDRESS)
    await correct(desk)

    assert await send(desk) == [(NEW, "1000")]


async def test_a_late_yes_of_the_old_address_does_not_stop_the_mail_to_the_right_one(desk: Desk) -> None:
    await desk.reached(1000)
    _, (claim,) = await desk.take(lease_for=timedelta(milliseconds=1))
    desk.smtp.answer("RCPT", UNKNOWN)
    await send(desk)  # taken over, and refused
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)
    await desk.store.sent(claim.delivery.delivery_id, "250 OK (DATA)", claim.delivery.email)

    assert await send(desk) == [(NEW, "1000")]


async def test_a_mail_given_up_for_its_domain_goes_to_the_corrected_address(desk: Desk) -> None:
    await desk.reached(1000)
    desk.smtp.answer("RCPT", *["450 4.1.2 domain not found"] * 2)
    async with desk.sending(give_up_days=0.0000001):
        await desk.finished()
    assert "given up" in (await desk.rows())[0]["last_reply"]
    desk.catalogue.apply(petition(office_0=NEW))
    await correct(desk)

    assert await send(desk) == [(NEW, "1000")]
    assert (await desk.rows())[0]["deferred_since"] is None


async def test_an_address_that_had_the_mail_as_another_targets_does_not_get_it_twice(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.smtp.answer("RCPT", UNKNOWN)
    await send(desk)
    failed = next(row["target_id"] for row in await desk.rows() if row["state"] == "failed")
    other = 1 - int(failed[-1])
    wrong = {f"office_{failed[-1]}": f"Office{other}@harbour.example"}
    desk.catalogue.apply(petition(2, **wrong))
    await correct(desk)

    row = next(row for row in await desk.rows() if row["target_id"] == failed)
    assert (row["state"], row["last_reply"]) == ("failed", ALREADY_TOLD)
    desk.catalogue.apply(petition(2, **{f"office_{failed[-1]}": NEW}))
    await correct(desk)
    assert (await send(desk))[-1] == (NEW, "1000")


async def test_two_targets_that_are_corrected_to_one_address_send_it_one_mail(desk: Desk) -> None:
    await fail(desk, 1000, targets=2)
    desk.catalogue.apply(petition(2, office_0=NEW, office_1=NEW))
    await correct(desk)

    assert await send(desk) == [(NEW, "1000")]
    assert sorted(await desk.states()) == ["failed", "sent"]


# --------------------------------------------------------------------------------------------------- a target comes back


async def test_a_target_that_is_addressed_again_gets_what_was_withheld(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.catalogue.apply(petition(1))
    await send(desk)
    assert [row["last_reply"] for row in await desk.rows() if row["target_id"] == "office-1"] == [NO_TARGET]
    desk.catalogue.apply(petition(2))
    await correct(desk)

    assert await send(desk) == [(OLD, "1000"), ("office1@harbour.example", "1000")]


async def test_a_target_that_comes_back_under_another_id_gets_what_failed_under_the_old_one(desk: Desk) -> None:
    await desk.reached(1000)
    await fail(desk, 2500)
    renamed = petition(office_0=NEW)
    renamed.targets[0] = renamed.targets[0].model_copy(update={"target_id": "harbour"})
    desk.catalogue.apply(renamed)
    await asyncio.gather(correct(desk), correct(desk))

    assert await send(desk) == [(NEW, "1000, 2500")]
    rows = {(row["target_id"], row["threshold"]): row for row in await desk.rows()}
    assert rows["office-0", 2500]["failed_for"] == "moved"
    assert rows["office-0", 2500]["last_reply"] == MOVED
    assert rows["harbour", 2500]["delivery_id"] == delivery_id(FERRY, 2500, "harbour")
    await correct(desk)
    assert len(await send(desk)) == 1


async def test_somebody_of_the_same_name_who_had_all_mails_is_somebody_else(desk: Desk) -> None:
    await desk.reached(1000, targets=2)
    desk.smtp.answer("RCPT", UNKNOWN)
    await send(desk)
    failed = next(row["target_id"] for row in await desk.rows() if row["state"] == "failed")
    both = petition(2)
    left = [one.model_copy(update={"name": f"Office {failed[-1]}"}) for one in both.targets if one.target_id != failed]
    desk.catalogue.apply(both.model_copy(update={"targets": left}))
    await correct(desk)

    assert sorted(await desk.states()) == ["failed", "sent"]
    desk.catalogue.apply(petition(2, **{f"office_{failed[-1]}": NEW}))
    await correct(desk)
    assert (await send(desk))[-1] == (NEW, "1000")
