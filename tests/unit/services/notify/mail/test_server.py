"""How an SMTP_URL is read. What the connection does is tested on a real server (tests/integration/notify/test_notify.py)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notify.mail.server import SmtpServer


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://127.0.0.1:1025", SmtpServer("127.0.0.1", 1025, "none")),
        ("smtp://relay", SmtpServer("relay", 25, "none")),
        ("smtps://u:p@relay.example", SmtpServer("relay.example", 465, "tls", "u", "p")),
        ("smtp+starttls://u:p@relay.example/", SmtpServer("relay.example", 587, "starttls", "u", "p")),
        (
            "smtp+starttls://me%40home.example:p%2Fq%3A@relay:2525",
            SmtpServer("relay", 2525, "starttls", "me@home.example", "p/q:"),
        ),
        ("smtp://[::1]:1025", SmtpServer("::1", 1025, "none")),
    ],
)
def test_an_smtp_url_names_host_port_encryption_and_login(url: str, expected: SmtpServer) -> None:
    assert SmtpServer.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://relay", "must begin with smtp://"),
        ("relay:25", "must begin with smtp://"),
        ("smtp://", "names no host"),
        ("smtp://relay:99999", "host and port"),
        ("smtp://u:sec/ret@relay", "host and port|must end after"),
        ("smtp://relay/path", "must end after"),
        ("smtp://:secret@relay", "password without a user"),
    ],
)
def test_a_wrong_smtp_url_is_refused_in_words_that_do_not_repeat_it(url: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as refusal:
        SmtpServer.parse(url)
    assert "secret" not in str(refusal.value)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        server = SmtpServer.parse(text)
    except ValueError:
        return
    assert server.host
    assert 0 < server.port < 65536


def test_the_password_is_not_printed() -> None:
    assert "hunter2" not in repr(SmtpServer.parse("smtps://me:hunter2@relay"))
