"""Which refusals another address can resolve, and which have other causes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.deliveries import NO_MAIL, NO_TARGET, NOT_DECIDED, NOT_ITS_ID
from services.notify.mail.refusals import (
    ALREADY_TOLD,
    MOVED,
    NEEDS_SMTPUTF8,
    NO_ADDRESS,
    Cause,
    cause_in,
    cause_of,
    enhanced_status,
    read_reply,
)
from services.notify.mail.replies import Reply, Stage


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (550, "5.1.1 no such office"),
        (550, "5.1.1 The email account that you tried to reach does not exist. 5.1.1 Please try"),
        (550, "#5.1.0 Address rejected."),
        (550, "sorry, no mailbox here by that name. (#5.1.1)"),
        (556, "5.1.10 the domain has a null MX"),
        (550, "5.2.1 disabled"),
        (552, "5.2.2 mailbox full"),
        (550, "5.4.1 Recipient address rejected: Access denied"),
        (550, "5.4.310 the domain does not exist"),
        (550, "5.7.17 the mailbox belongs to somebody else now"),
        (553, "5.6.7 only ASCII"),
        (501, "5.5.4 malformed"),
        (501, "malformed address"),
        (550, "mailbox unavailable"),
        (550, "5.0.0 user unknown"),
        (551, "user not local"),
        (552, "full"),
        (553, "mailbox name not allowed"),
        (556, "domain does not accept mail"),
        (450, "mailbox busy"),
        (450, "4.1.2 domain not found"),
        (452, "4.2.2 mailbox full"),
        (451, "4.4.1 no answer from host"),
    ],
)
def test_what_a_server_says_of_the_recipient_may_be_put_right_by_another_address(code: int, text: str) -> None:
    assert cause_of(Reply(Stage.RECIPIENT, code, text)) is Cause.ADDRESS


@pytest.mark.parametrize(
    ("stage", "code", "text"),
    [
        (Stage.RECIPIENT, 550, "5.1.8 sender's domain not found"),
        (Stage.RECIPIENT, 550, "5.1.7 sender's address"),
        (Stage.RECIPIENT, 550, "5.7.1 blocked by a list"),
        (Stage.RECIPIENT, 554, "transaction failed"),
        (Stage.RECIPIENT, 503, "5.5.1 send MAIL first"),
        (Stage.RECIPIENT, 451, "4.3.0 try later"),
        (Stage.RECIPIENT, 451, "4.7.1 greylisted"),
        (Stage.RECIPIENT, 452, "insufficient system storage"),
        (Stage.CONTENT, 550, "looks like spam"),
        (Stage.CONTENT, 550, "5.7.1 not wanted here"),
        (Stage.CONTENT, 554, "5.6.0 content rejected"),
        (Stage.CONTENT, 552, "5.3.4 message too big"),
        (Stage.CONTENT, 501, "5.5.2 syntax"),
        (Stage.SENDER, 550, "5.1.1 not you"),
    ],
)
def test_what_it_says_of_content_sender_or_itself_may_not(stage: Stage, code: int, text: str) -> None:
    assert cause_of(Reply(stage, code, text)) is Cause.SERVER


@pytest.mark.parametrize("text", ["5.1.1 no such office", "5.2.2 mailbox full", "#5.1.0 rejected"])
def test_a_server_that_looks_at_the_recipient_after_the_content_is_understood_as_well(text: str) -> None:
    assert cause_of(Reply(Stage.CONTENT, 550, text)) is Cause.ADDRESS
    assert cause_of(Reply(Stage.CONTENT, 552, "full")) is Cause.ADDRESS


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (550, "5.1.1 no", (5, 1, 1)),
        (550, "5.1.1", (5, 1, 1)),
        (550, "(5.1.1) no", (5, 1, 1)),
        (550, "4.1.1 of another class", None),
        (550, "5.1.1.7 is an address of the net", None),
        (550, "10.5.1.1 blocked", None),
        (550, "blocked: 5.1.1", None),
        (550, "5.1000.1", None),
        (550, "", None),
    ],
)
def test_an_enhanced_status_is_one_of_the_replys_class_in_its_place(
    code: int, text: str, status: tuple[int, int, int] | None
) -> None:
    assert enhanced_status(Reply(Stage.RECIPIENT, code, text)) == status


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("550 5.1.1 no such office (RCPT TO)", Cause.ADDRESS),
        ("550 5.7.1 blocked (RCPT TO)", Cause.SERVER),
        ("550 mailbox (old) unavailable (RCPT TO)", Cause.ADDRESS),
        ("given up after 5 days; last: 450 4.1.2 domain not found (RCPT TO)", Cause.ADDRESS),
        ("given up after 5 days; last: connection lost (DATA)", Cause.SERVER),
        ("given up after 5 days; last: a bug of this version: KeyError", Cause.SERVER),
        (NO_ADDRESS, Cause.ADDRESS),
        (NEEDS_SMTPUTF8, Cause.ADDRESS),
        (NO_TARGET, Cause.TARGET),
        (NOT_DECIDED, Cause.WITHHELD),
        (NOT_ITS_ID, Cause.WITHHELD),
        (NO_MAIL, Cause.WITHHELD),
        (ALREADY_TOLD, Cause.ADDRESS),
        (MOVED, Cause.MOVED),
        ("", Cause.SERVER),
    ],
)
def test_rows_of_older_versions_are_understood_by_their_last_words(words: str, cause: Cause) -> None:
    assert cause_in(words) is cause


@settings(deadline=None)
@given(st.sampled_from(Stage), st.integers(200, 599), st.from_regex(r"[!-~]+( [!-~]+)*", fullmatch=True))
def test_a_reply_is_read_as_it_was_written(stage: Stage, code: int, text: str) -> None:
    reply = Reply(stage, code, text)
    assert read_reply(str(reply)) == reply
    assert cause_in(str(reply)) is cause_of(reply)


@given(st.text())
def test_whatever_stands_in_a_row_has_a_cause(words: str) -> None:
    assert cause_in(words) in Cause
