"""The display of a server's reply for operators."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.outbox.listing import LastWords, last_words


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("550 5.1.1 no such office (RCPT TO)", LastWords(550, "5.1.1", "RCPT TO", "5.1.1 no such office")),
        ("250 OK (DATA)", LastWords(250, None, "DATA", "OK")),
        (
            "551 user not local; try <robin@home.example> (RCPT TO)",
            LastWords(551, None, "RCPT TO", "user not local; try <<address>>"),
        ),
        ("connection lost (DATA)", LastWords(None, None, None, "connection lost (DATA)")),
        (
            "given up after 5 days; last: 450 4.1.2 domain not found (RCPT TO)",
            LastWords(450, "4.1.2", "RCPT TO", "4.1.2 domain not found"),
        ),
    ],
)
def test_a_reply_is_shown_in_its_parts_without_addresses(words: str, shown: LastWords) -> None:
    assert last_words(words) == shown


@settings(deadline=None)
@given(st.text(st.one_of(st.sampled_from("@<>\x1b\x07\n\u202e 5.1()"), st.characters()), max_size=2000))
def test_whatever_stands_there_is_short_on_one_line_and_nothing_that_a_terminal_obeys(words: str) -> None:
    text = last_words(words).text
    assert len(text) <= 300
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") for character in text)
    assert "\u202e" not in text
