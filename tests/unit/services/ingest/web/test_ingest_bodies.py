"""Request bodies: read up to a limit, and turned into a submission."""

import pytest

from services.ingest.signing.admission import Submission
from services.ingest.web.bodies import ClientDisconnected, read_body, read_form
from shared.web.problems import Problem

FORM = {b"content-type": b"application/x-www-form-urlencoded"}
JSON = {b"content-type": b"application/json; charset=utf-8"}


def receiving(*chunks: bytes | None):
    """An ASGI receive that gives these chunks; None is a client that goes away."""
    messages = [
        {"type": "http.disconnect"}
        if chunk is None
        else {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1}
        for index, chunk in enumerate(chunks)
    ]

    async def receive():
        return messages.pop(0)

    receive.left = messages
    return receive


async def test_a_body_is_put_together_from_its_chunks():
    assert await read_body({}, receiving(b"ab", b"", b"cd"), 4) == b"abcd"


async def test_a_body_that_announces_too_much_is_refused_before_it_is_read():
    receive = receiving(b"x")
    with pytest.raises(Problem) as refusal:
        await read_body({b"content-length": b"5"}, receive, 4)
    assert refusal.value.status == 413
    assert receive.left


async def test_a_body_that_announces_nothing_is_refused_as_soon_as_it_is_too_large():
    receive = receiving(b"xxx", b"xx", b"never read")
    with pytest.raises(Problem) as refusal:
        await read_body({}, receive, 4)
    assert refusal.value.status == 413
    assert receive.left


async def test_a_client_that_goes_away_in_the_middle_is_not_answered():
    with pytest.raises(ClientDisconnected):
        await read_body({}, receiving(b"half", None), 100)


def test_a_form_and_json_say_the_same():
    sent = read_form(
        FORM,
        b"email=robin%2Bx%40mail.example&name=Jos%C3%A9+R&country=+nl&postcode=&comment=a%0D%0Ab&consent=on&else=1",
        Submission,
    )
    same = read_form(
        JSON,
        '{"email":"robin+x@mail.example","name":"José R","country":"nl","comment":"a\\r\\nb","consent":true,"else":1}'.encode(),
        Submission,
    )
    assert sent == same


def test_a_multipart_form_says_the_same_too():
    lines = [
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % pair
        for pair in ((b"email", b"robin@mail.example"), (b"name", b"R"), (b"country", b"nl"))
    ]
    sent = read_form({b"content-type": b"multipart/form-data; boundary=b"}, b"".join(lines) + b"--b--\r\n", Submission)
    assert (sent.email, sent.name, sent.country, sent.consent) == ("robin@mail.example", "R", "nl", False)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (JSON, b"{", 400),
        (JSON, b"\xff", 400),
        (JSON, b"", 400),
        (JSON, b"[]", 422),
        (JSON, b"{}", 422),
        (JSON, b'{"email": 1, "name": "R", "country": "nl"}', 422),
        (JSON, b'{"email": "a@b.example", "name": "R", "country": "nl", "consent": "yes"}', 422),
        (FORM, b"email=%FF&name=R&country=nl", 400),
        (FORM, "email=é".encode(), 400),
        (FORM, b"&".join(b"f%d=1" % number for number in range(60)), 400),
        (FORM, b"", 422),
        (FORM, b"email=robin%40mail.example&name=&country=nl", 422),
        ({b"content-type": b"multipart/form-data"}, b"", 400),
        ({b"content-type": b"multipart/form-data; boundary=b"}, b"nonsense", 400),
        (
            {b"content-type": b"multipart/form-data; boundary=b"},
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nx\r\n--b--\r\n',
            400,
        ),
        ({b"content-type": b"text/plain"}, b"x", 415),
        ({}, b"{}", 415),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_right_status(headers, body, status):
    with pytest.raises(Problem) as refusal:
        read_form(headers, body, Submission)
    assert refusal.value.status == status
