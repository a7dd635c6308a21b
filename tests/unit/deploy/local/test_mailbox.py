"""The mail catcher's rules and its store."""

from pathlib import Path

import pytest

from deploy.local.mailbox.smtp import Refusals
from deploy.local.mailbox.store import MailboxStore, parse

PLAIN = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@x.example>\r\n\r\nHello\r\n"


@pytest.mark.parametrize(
    ("address", "reply"),
    [
        ("defer451@council.example", "451 Try again later"),
        ("DEFER421@council.example", "421 Try again later"),
        ("refuse550@council.example", "550 No such mailbox"),
        ("refuse552+harbour@council.example", "552 No such mailbox"),
        ("defer550@council.example", None),
        ("refuse451@council.example", None),
        ("deferral@council.example", None),
        ("mayor@refuse550.example", None),
    ],
)
def test_an_address_can_ask_for_its_own_error(address: str, reply: str | None) -> None:
    assert Refusals().reply_to(address) == reply


def test_replies_that_were_set_hold_until_they_are_replaced() -> None:
    refusals = Refusals()
    refusals.replace({"Harbour@Council.example": "452 mailbox full"})
    assert refusals.reply_to("harbour@council.example") == "452 mailbox full"
    refusals.replace({})
    assert refusals.reply_to("harbour@council.example") is None


@pytest.mark.parametrize("reply", ["250 fine", "451", "later", "451 two\r\n250 lines"])
def test_a_reply_that_is_no_smtp_error_is_not_taken(reply: str) -> None:
    with pytest.raises(ValueError, match="must read like"):
        Refusals().replace({"harbour@council.example": reply})


def add(store: MailboxStore) -> int:
    mail = store.add(
        mail_from="a@x.example", rcpt_to=["b@x.example"], content=PLAIN, received_at="2026-01-01T00:00:00Z"
    )
    return mail.id


def test_a_mail_without_html_has_its_decoded_subject_and_text() -> None:
    mail = parse(mail_id=1, mail_from="", rcpt_to=["b@x.example"], content=PLAIN, received_at="2026-01-01T00:00:00Z")
    assert (mail.subject, mail.text, mail.html) == ("Grüße", "Hello\n", "")
    assert mail.headers["Message-ID"] == "<1@x.example>"


def test_mails_are_there_again_when_the_store_is_opened_anew(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path / "mails.jsonl")
    add(store)
    add(store)
    assert list(MailboxStore(tmp_path / "mails.jsonl").mails) == list(store.mails)


def test_a_mail_torn_by_a_kill_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "mails.jsonl"
    add(MailboxStore(file))
    whole = file.read_text()
    file.write_text(whole + whole[: len(whole) // 2])
    store = MailboxStore(file)
    assert [mail.id for mail in store.mails] == [1]
    assert add(store) == 2
    assert [mail.id for mail in MailboxStore(file).mails] == [1, 2]


def test_an_emptied_mailbox_never_gives_an_old_number_to_another_mail(tmp_path: Path) -> None:
    store = MailboxStore(tmp_path / "mails.jsonl")
    add(store)
    assert store.clear() == 1
    assert list(store.mails) == []
    assert add(store) == 2
    assert store.get(1) is None
