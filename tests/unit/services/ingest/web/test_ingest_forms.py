"""Bodies in other encodings than expected: decoded by what they declare, or refused in words that say UTF-8."""

import json

import pytest

from services.ingest.signing.admission import Submission
from services.ingest.web.bodies import read_form
from shared.web.problems import Problem
from shared.web.sign_form import FormUnreadable, urlencoded
from tests.support.hostile_ingest import AS_ADMIN, GOOD, JSON, SIGN, ingest_anew, multipart

NAMES = {
    "windows-1251": "Олена",
    "koi8-r": "Олег",
    "iso-8859-1": "José €",  # as browsers read that label: windows-1252
    "iso-8859-15": "Zoë €",
    "windows-1250": "Łąka",
    "shift_jis": "表ア",  # with bytes of ASCII inside its letters
    "euc-jp": "表ア",
    "gb2312": "李明",
    "gb18030": "李明🚆",
    "big5": "許功蓋",
    "euc-kr": "김철수",
    "utf-8": "Олена",
}


def bytes_of(charset: str) -> bytes:
    codec = {"iso-8859-1": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030", "big5": "big5hkscs", "euc-kr": "cp949"}
    return NAMES[charset].encode(codec.get(charset, charset))


def percent(data: bytes) -> bytes:
    return b"".join(bytes([byte]) if chr(byte).isascii() and chr(byte).isalnum() else b"%%%02X" % byte for byte in data)


def form_of(name: bytes, *first: bytes) -> bytes:
    return b"&".join([*first, b"email=robin%40mail.example", b"name=" + percent(name), b"country=NL"])


def parts(name: bytes, *, declared: bytes = b"", per_part: bytes = b"") -> bytes:
    fields = [(b"email", b"robin@mail.example"), (b"name", name), (b"country", b"NL")]
    if declared:
        fields.insert(0, (b"_charset_", declared))
    kind = b"Content-Type: text/plain; charset=%s\r\n" % per_part if per_part else b""
    return (
        b"".join(
            b'--b\r\nContent-Disposition: form-data; name="%s"\r\n%s\r\n%s\r\n' % (key, kind, value)
            for key, value in fields
        )
        + b"--b--\r\n"
    )


FORM, MULTIPART = b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=b"


@pytest.mark.parametrize("charset", NAMES)
def test_a_form_is_decoded_by_the_charset_that_it_declares_wherever_it_does(charset: str) -> None:
    name, label = bytes_of(charset), charset.encode()
    for kind, body in (
        (FORM + b"; charset=" + label, form_of(name)),
        (FORM, form_of(name, b"_charset_=" + label)),
        (MULTIPART + b'; charset="' + label.upper() + b'"', parts(name)),
        (MULTIPART, parts(name, declared=label)),
        (MULTIPART, parts(name, per_part=label)),
    ):
        assert read_form({b"content-type": kind}, body, Submission).name == NAMES[charset], kind


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, form_of("Олена".encode("cp1251"))),
        (MULTIPART, parts("Олена".encode("cp1251"))),
        (FORM + b"; charset=shift_jis", form_of(b"\x81")),
        (FORM + b"; charset=utf-7", form_of(b"Robin")),
        (FORM, form_of(b"Robin", b"_charset_=idna")),
        (MULTIPART, parts(b"Robin", declared=b"unicode_escape")),
        (MULTIPART, parts(b"Robin", per_part=b"zip")),
        (b"application/json; charset=windows-1251", json.dumps(GOOD).encode()),
        (b"application/json", '{"name": "Олена"}'.encode("cp1251")),
        (b"application/json", json.dumps(GOOD).encode("utf-16")),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_words_that_say_utf_8(kind: bytes, body: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        read_form({b"content-type": kind}, body, Submission)
    assert refusal.value.status == 400
    assert "UTF-8" in refusal.value.detail


def test_a_form_of_many_fields_or_none_that_is_whole_is_refused() -> None:
    with pytest.raises(FormUnreadable, match="fields"):
        urlencoded(b"&".join(b"f%d=1" % number for number in range(60)), None)
    with pytest.raises(Problem):
        read_form({b"content-type": MULTIPART}, multipart({f"f{number}": 1 for number in range(60)}), Submission)
    with pytest.raises(Problem):
        read_form({b"content-type": MULTIPART}, multipart(GOOD)[:-8], Submission)


async def test_json_that_begins_with_a_byte_order_mark_is_read_alone_and_in_a_batch() -> None:
    bom, line = b"\xef\xbb\xbf", json.dumps(GOOD).encode()
    answer = await ingest_anew().ask("POST", SIGN, [JSON], [bom + line])
    assert answer is not None
    assert answer.status == 202
    batch = [AS_ADMIN, (b"content-type", b"application/x-ndjson; charset=utf-8")]
    answer = await ingest_anew().ask("POST", SIGN + b"/batch", batch, [bom + line + b"\n" + bom + b"\n" + bom + line])
    assert answer is not None
    assert [(each["line"], each["status"]) for each in json.loads(answer.body)["results"]] == [(1, 202), (3, 202)]


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"GZIP, identity", b"\xff"])
async def test_a_compressed_body_is_415_and_the_coding_is_named(coding: bytes) -> None:
    kinds = {
        SIGN: [JSON],
        SIGN + b"/batch": [AS_ADMIN, (b"content-type", b"application/x-ndjson")],
        SIGN.removesuffix(b"/signatures"): [AS_ADMIN, JSON],
    }
    for path, headers in kinds.items():
        method = "POST" if path.startswith(SIGN) else "PUT"
        answer = await ingest_anew().ask(method, path, [*headers, (b"content-encoding", coding)], [b"\x1f\x8b"])
        assert answer is not None
        assert answer.status == 415
        problem = json.loads(answer.body)
        assert problem["type"].endswith(":unsupported_content_encoding")
        assert coding == b"\xff" or coding.decode().lower() in problem["detail"]
    answer = await ingest_anew().ask(
        "POST", SIGN, [JSON, (b"content-encoding", b"identity")], [json.dumps(GOOD).encode()]
    )
    assert answer is not None
    assert answer.status == 202
